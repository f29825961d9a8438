// What both ends of a session have in common.
#include <fmt/format.h>

#include "replay/session.h"

namespace reprise::replay {

namespace {

constexpr uint64_t kProgressBytes = 64 << 10;

}  // namespace

bool ResyncBudget::take(uint64_t now_ms) {
  constexpr uint64_t kMinuteMs = 60'000;
  while (!taken_ms_.empty() && taken_ms_.front() + kMinuteMs <= now_ms) taken_ms_.pop_front();
  if (taken_ms_.size() >= per_minute_) return false;
  taken_ms_.push_back(now_ms);
  return true;
}

Channel::Channel(const SessionOptions& options, uint64_t now_ms)
    : options_(options),
      started_ms_(now_ms),
      now_ms_(now_ms),
      last_sent_ms_(now_ms),
      last_received_ms_(now_ms) {}

void Channel::send(const Control& control) {
  if (closed_) return;
  Result<Bytes> frame = encode_control(control);
  if (!frame) {
    closed_ = frame.error();
    return;
  }
  sent_bytes_ += frame->size();
  last_sent_ms_ = now_ms_;
  output_.push_back({.bytes = std::move(*frame)});
}

void Channel::send(const journal::Batch& batch) {
  if (closed_) return;
  auto header = batch_frame_header(batch);
  output_.push_back({.bytes = Bytes(header.begin(), header.end()), .batch = batch});
  sent_bytes_ += output_.back().size();
  last_sent_ms_ = now_ms_;
}

std::array<std::byte, kFrameHeaderBytes> Channel::frame_tree(size_t payload_bytes) {
  auto header = tree_frame_header(payload_bytes);
  number_frame(header, sent_frames_++);
  sent_bytes_ += header.size() + payload_bytes;
  last_sent_ms_ = now_ms_;
  return header;
}

void Channel::close(Error why, const std::optional<Control>& last) {
  if (closed_) return;
  if (last) send(*last);
  if (!closed_) closed_ = std::move(why);
}

void Channel::close_malformed(const Error& error) {
  close(error, Control(Refuse{.code = error.code(), .reason = error.message()}));
}

std::optional<Incoming> Channel::take(ByteView& bytes) {
  while (!closed_ && !bytes.empty()) {
    size_t before = bytes.size();
    Result<std::optional<Incoming>> message = reader_.take(bytes);
    received_bytes_ += before - bytes.size();
    unfinished_bytes_ += before - bytes.size();
    // Not for any byte: behind a header whose size is wrong, heartbeats would pass for what it announced.
    if (!message || *message || unfinished_bytes_ >= kProgressBytes) {
      last_received_ms_ = now_ms_;
      unfinished_bytes_ = 0;
    }
    if (!message)
      close_malformed(message.error());
    else if (*message)
      return std::move(*message);
  }
  return std::nullopt;
}

void Channel::tick(uint64_t now_ms, bool greeted) {
  set_now(now_ms);
  std::string what;
  if (!greeted && now_ms_ - started_ms_ >= options_.handshake_timeout_ms)
    what = fmt::format("the peer did not complete the handshake within {} ms", options_.handshake_timeout_ms);
  else if (now_ms_ - last_received_ms_ >= options_.silence_limit_ms)
    what = fmt::format("the peer was silent for {} ms", options_.silence_limit_ms);
  if (!what.empty()) close(Error(Code::kTimeout, what), Control(Bye{.code = Code::kTimeout, .reason = what}));
}

void Channel::listen_again(uint64_t now_ms) {
  set_now(now_ms);
  last_received_ms_ = now_ms_;
}

bool Channel::heartbeat_due() const {
  return now_ms_ - last_sent_ms_ >= options_.heartbeat_interval_ms;
}

std::vector<Outgoing> Channel::take_output() {
  for (Outgoing& out : output_) number_frame(out.bytes, sent_frames_++);
  return std::exchange(output_, {});
}

}  // namespace reprise::replay
