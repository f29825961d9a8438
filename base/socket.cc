#include "base/socket.h"

#include <fmt/format.h>

#include <charconv>

#include "base/socket_stream.h"

namespace reprise {
namespace {

constexpr std::string_view kUnixPrefix = "unix:", kTcpPrefix = "tcp:", kProcessPrefix = "process:";

class HostNetwork final : public Network {
 public:
  Result<std::unique_ptr<Listener>> listen(const Endpoint& endpoint) override {
    switch (endpoint.kind) {
      case Endpoint::Kind::kTcp:
        return listen_tcp(endpoint);
      case Endpoint::Kind::kProcess:
        return listen_in_process(endpoint);
      case Endpoint::Kind::kUnix:
        break;
    }
    return listen_unix(endpoint);
  }
  Result<std::unique_ptr<Stream>> connect(const Endpoint& endpoint, uint32_t timeout_ms) override {
    switch (endpoint.kind) {
      case Endpoint::Kind::kTcp:
        return connect_tcp(endpoint, timeout_ms);
      case Endpoint::Kind::kProcess:
        return connect_in_process(endpoint);
      case Endpoint::Kind::kUnix:
        break;
    }
    return connect_unix(endpoint, timeout_ms);
  }
};

// HOST:PORT, [ADDRESS]:PORT.
Result<Endpoint> parse_tcp(std::string_view text, std::string_view rest) {
  auto wrong = [&](std::string_view expected) {
    return fail(Code::kInvalidArgument,
                fmt::format("endpoint \"{}\": expected {}", printable(text), expected));
  };
  size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) return wrong("tcp:HOST:PORT");
  std::string_view host = rest.substr(0, colon), number = rest.substr(colon + 1);
  Endpoint out{.kind = Endpoint::Kind::kTcp};
  auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), out.port);
  if (error != std::errc() || end != number.data() + number.size() || out.port == 0)
    return wrong("a port from 1 to 65535 behind the last colon");
  bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (!bracketed && host.find(':') != std::string_view::npos)
    return wrong("brackets around an IPv6 address: tcp:[ADDRESS]:PORT");
  bool odd = host.empty() || host.find_first_of(std::string_view("\0 []/", 5)) != std::string_view::npos;
  if (odd) return wrong("tcp:HOST:PORT");
  out.host = host;
  return out;
}

}  // namespace

Result<Endpoint> Endpoint::parse(std::string_view text) {
  if (text.starts_with(kTcpPrefix)) return parse_tcp(text, text.substr(kTcpPrefix.size()));
  const bool in_process = text.starts_with(kProcessPrefix);
  if (!in_process && !text.starts_with(kUnixPrefix)) {
    return fail(
        Code::kInvalidArgument,
        fmt::format(
            "endpoint \"{}\": expected unix:PATH or tcp:HOST:PORT, or process:NAME within one process",
            printable(text)));
  }
  if (in_process) {
    Endpoint out{.kind = Kind::kProcess, .path = std::string(text.substr(kProcessPrefix.size()))};
    if (!out.path.empty()) return out;
    return fail(Code::kInvalidArgument, "endpoint \"process:\": expected a name after it");
  }
  Endpoint out{.kind = Kind::kUnix, .path = std::string(text.substr(kUnixPrefix.size()))};
  if (out.path.empty() || out.path.find('\0') != std::string::npos)
    return fail(Code::kInvalidArgument,
                fmt::format("endpoint \"{}\": expected a path after unix:", printable(text)));
  return out;
}

std::string Endpoint::to_string() const {
  if (kind != Kind::kTcp)
    return fmt::format("{}{}", kind == Kind::kUnix ? kUnixPrefix : kProcessPrefix, path);
  bool bracketed = host.find(':') != std::string::npos;
  return bracketed ? fmt::format("{}[{}]:{}", kTcpPrefix, host, port)
                   : fmt::format("{}{}:{}", kTcpPrefix, host, port);
}

Network& system_network() {
  static HostNetwork network;
  return network;
}

}  // namespace reprise
