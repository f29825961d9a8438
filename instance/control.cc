#include "instance/control.h"

#include <fmt/format.h>

#include <array>

namespace reprise::instance {
namespace {

constexpr uint32_t kMessageLimit = 16 << 20;
constexpr uint32_t kForever_ms = UINT32_MAX;
constexpr uint32_t kPatience_ms = 10'000;  // for a message that has begun

Status read_exactly(Stream& stream, ByteSpan into, uint32_t timeout_ms) {
  while (!into.empty()) {
    size_t n = TRY(stream.read(into, timeout_ms));
    if (n == 0)
      return fail(Code::kUnreachable, "the other side closed the connection before it had said everything");
    into = into.subspan(n);
  }
  return {};
}

Result<Json> receive(Stream& stream, uint32_t timeout_ms) {
  std::array<std::byte, 4> length_bytes;
  TRY(read_exactly(stream, length_bytes, timeout_ms));
  uint32_t length = load_value<uint32_t>(length_bytes.data());
  if (length > kMessageLimit)
    return fail(Code::kCorrupt,
                fmt::format("a control message of {} bytes, expected at most {}", length, kMessageLimit));
  std::string text(length, '\0');
  TRY(read_exactly(stream, {reinterpret_cast<std::byte*>(text.data()), text.size()}, kPatience_ms));
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_object())
    return fail(Code::kCorrupt, "a control message that is no JSON object");
  return json;
}

Status send(Stream& stream, const Json& json) {
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::array<std::byte, 4> length_bytes;
  store_value(length_bytes.data(), static_cast<uint32_t>(text.size()));
  std::array<ByteView, 2> pieces{length_bytes, as_bytes(text)};
  return stream.write(pieces, kPatience_ms);
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::listen(Network& network, const std::string& path,
                                                             Handler handler) {
  auto listener = TRY(network.listen({Endpoint::Kind::kUnix, path}));
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(listener), std::move(handler)));
}

ControlServer::ControlServer(std::unique_ptr<Listener> listener, Handler handler)
    : listener_(std::move(listener)), handler_(std::move(handler)), acceptor_([this] { accept_all(); }) {}

ControlServer::~ControlServer() {
  stop();
}

void ControlServer::stop() {
  if (stopping_.exchange(true)) return;
  listener_->close();
  acceptor_.join();
  reap(true);
}

void ControlServer::reap(bool all) {
  std::lock_guard lock(mutex_);
  for (auto connection = connections_.begin(); connection != connections_.end();) {
    if (!all && !connection->done) {
      ++connection;
      continue;
    }
    if (!connection->done) connection->stream->shut_down();
    connection->thread.join();
    connection = connections_.erase(connection);
  }
}

void ControlServer::accept_all() {
  while (auto stream = listener_->accept()) {
    reap(false);
    std::lock_guard lock(mutex_);
    Connection& connection = connections_.emplace_back();
    connection.stream = std::move(*stream);
    connection.thread = std::thread([this, &connection] {
      answer(*connection.stream);
      connection.stream->shut_down();
      connection.done = true;
    });
  }
}

void ControlServer::answer(Stream& stream) {
  auto question = receive(stream, kPatience_ms);
  Say say = [&](const Json& part) -> Status {
    TRY(send(stream, {{"part", part}}));
    TRY(receive(stream, kForever_ms));  // stop() ends it
    return {};
  };
  Result<Json> answer = question ? handler_(*question, stopping_, say) : std::unexpected(question.error());
  Json message;
  if (answer) {
    message["answer"] = *answer;
  } else {
    message["error"] = {{"code", static_cast<int>(answer.error().code())},
                        {"message", answer.error().message()}};
  }
  // Nobody is left to tell when the asker has gone away.
  (void)send(stream, message);
}

Result<Json> ask(Network& network, const std::string& path, const Json& question, uint32_t timeout_ms,
                 const TakePart& take) {
  auto stream = TRY(network.connect({Endpoint::Kind::kUnix, path}, kPatience_ms));
  TRY(send(*stream, question));
  Json message = TRY(receive(*stream, timeout_ms));
  for (; message.contains("part"); message = TRY(receive(*stream, timeout_ms))) {
    if (!take) return fail(Code::kCorrupt, path + ": an answer in parts where one was expected");
    TRY(take(message["part"]));
    if (!send(*stream, {{"ask", "more"}}))
      return fail(Code::kUnreachable, path + ": the other side has gone before it had said everything");
  }
  if (message.contains("answer")) return message["answer"];
  const Json& error = message.contains("error") ? message["error"] : Json();
  if (!error.is_object() || !error.contains("code") || !error["code"].is_number_integer() ||
      !error.contains("message") || !error["message"].is_string()) {
    return fail(Code::kCorrupt, path + ": an answer that is neither an answer nor an error");
  }
  int code = error["code"].get<int>();
  bool known = code >= 0 && code <= static_cast<int>(Code::kCancelled);
  return fail(known ? static_cast<Code>(code) : Code::kIo, error["message"].get<std::string>());
}

}  // namespace reprise::instance
