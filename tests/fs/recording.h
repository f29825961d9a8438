// What facade tests share: a clock that ticks, a sink that keeps operations, and the laws that hold after
// every call.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <string>
#include <vector>

#include "fs/filesystem.h"

namespace reprise::fs {

inline int code(Errno value) {
  return static_cast<int>(value);
}
template <class T>
int error_of(const Outcome<T>& outcome) {
  return outcome ? 0 : static_cast<int>(outcome.error());
}

class TickingClock final : public Clock {
 public:
  Timestamp realtime() override { return {1'700'000'000 + ticks_++, 5}; }
  uint64_t monotonic_ns() override { return static_cast<uint64_t>(ticks_++); }
  void sleep_ns(uint64_t) override {}

 private:
  int64_t ticks_ = 0;
};

// Owns what the operations point to.
class RecordingSink final : public OperationSink {
 public:
  Outcome<void> reserve(size_t) override {
    ++reserved;
    return refuse == 0 ? Outcome<void>{} : errno_of(refuse);
  }
  void record(const Operation& operation, std::string_view label) override {
    operations.push_back(operation);
    labels.emplace_back(label);
    std::visit([this](auto& op) { own(op); }, operations.back());
    if (auto* write = std::get_if<Write>(&operations.back()))
      largest_write = std::max(largest_write, write->data.size());
  }
  Outcome<void> end_call() override {
    ends.push_back(operations.size());
    return lose == 0 ? Outcome<void>{} : errno_of(lose);
  }
  Outcome<void> commit() override {
    ++commits;
    return fail_commit == 0 ? Outcome<void>{} : errno_of(fail_commit);
  }

  std::vector<Operation> operations;
  std::vector<std::string> labels;
  std::vector<size_t> ends;  // operations there were at the end of each call
  size_t largest_write = 0;
  std::atomic<int> reserved = 0;  // counted by whoever calls, without the lock of the filesystem
  std::atomic<int> commits = 0;
  int refuse = 0, lose = 0, fail_commit = 0;  // errnos, answered by reserve, end_call and commit

 private:
  template <class Op>
  void own(Op& op) {
    if constexpr (requires { op.name; }) keep(op.name);
    if constexpr (requires { op.old_name; }) keep(op.old_name);
    if constexpr (requires { op.new_name; }) keep(op.new_name);
    if constexpr (requires { op.target; }) keep(op.target);
    if constexpr (requires { op.data; }) keep(op.data);
    if constexpr (requires { op.value; }) keep(op.value);
  }
  void keep(std::string_view& text) { text = kept_.emplace_back(text); }
  void keep(ByteView& bytes) { bytes = as_bytes(kept_.emplace_back(as_text(bytes))); }

  std::deque<std::string> kept_;
};

inline constexpr Timestamp kBeginning{1'600'000'000, 0};

// A filesystem that records.
struct Recorded {
  TickingClock clock;
  std::unique_ptr<InodeIdSource> ids = local_inode_ids();
  RecordingSink sink;
  Filesystem filesystem{Head::create(kBeginning), clock, *ids, &sink};

  // Empty, or which law does not hold.
  std::string broken_law() {
    View view = filesystem.view();
    if (std::string wrong = view.check_invariants(); !wrong.empty()) return wrong;
    if (view.digest() != view.recompute_digest()) return "digest() is not recompute_digest()";
    return {};
  }
  // The recorded operations, applied to an empty tree.
  Head replayed() const {
    Head head = Head::create(kBeginning);
    for (const Operation& operation : sink.operations) {
      auto applied = head.apply(operation);
      EXPECT_TRUE(applied) << operation_name(operation) << ": " << errno_text(applied.error());
      for (InodeId inode : head.take_unlinked()) head.remove_unlinked(inode);
    }
    return head;
  }
  void expect_laws() {
    EXPECT_EQ(broken_law(), "");
    EXPECT_EQ(replayed().digest().to_string(), filesystem.digest().to_string());
  }
};

inline const Caller kTrusted{};

}  // namespace reprise::fs
