// The smallest instance: a head, a journal in memory, one writer. For the tests of sessions.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "base/check.h"
#include "fs/tree.h"
#include "journal/journal.h"
#include "replay/member.h"
#include "replay/replayer.h"

namespace reprise::replay {

// A clock that stands still until it is told otherwise.
class ManualClock final : public Clock {
 public:
  Timestamp realtime() override { return {static_cast<int64_t>(now_ns_.load() / 1'000'000'000), 0}; }
  uint64_t monotonic_ns() override { return now_ns_.load(); }
  void sleep_ns(uint64_t ns) override { now_ns_ += ns; }
  void advance_ms(uint64_t ms) { now_ns_ += ms * 1'000'000; }

 private:
  std::atomic<uint64_t> now_ns_{1'000'000'000};
};

class MemoryMember final : public Member {
 public:
  explicit MemoryMember(VolumeId volume, uint64_t origin = 1)
      : volume_(volume),
        origin_{.hi = 7, .lo = origin},
        head_(fs::Head::create(Timestamp{})),
        journal_(journal::Journal::in_memory({volume, "main"}, {})) {}

  // --- as a writer

  // One batch.
  void write(const std::vector<fs::Operation>& operations) {
    std::lock_guard lock(mutex_);
    journal::BatchBuilder builder;
    for (const fs::Operation& operation : operations) {
      CHECK(head_.apply(operation));
      builder.add(operation);
    }
    for (InodeId inode : head_.take_unlinked()) head_.remove_unlinked(inode);
    journal::Vector vector = replayer_.applied();
    Lsn lsn = vector.get(origin_) + 1;
    journal::BatchHeader header{
        .kind = lsn == 1 ? journal::BatchKind::kOriginStart : journal::BatchKind::kOrdinary,
        .origin = origin_,
        .lsn = lsn,
        .lamport = replayer_.lamport() + 1};
    journal::Batch batch = builder.finish(header);
    CHECK(journal_->append(batch));
    vector.set(origin_, lsn);
    replayer_ = Replayer(vector, header.lamport);
  }
  // Two operations in one batch: a new file with these bytes in the root directory.
  void write_file(const std::string& name, const std::string& bytes) {
    InodeId inode{next_inode_++};
    write({fs::Create{
               .parent = kRootInode, .name = name, .inode = inode, .mode = S_IFREG | 0644, .time = {1, 2}},
           fs::Write{.inode = inode, .offset = 0, .data = as_bytes(bytes), .time = {3, 4}}});
  }
  // Of a file in the root directory the beginning.
  void rewrite_file(const std::string& name, const std::string& bytes) {
    InodeId inode = head_.lookup(kRootInode, name)->inode;
    write({fs::Write{.inode = inode, .offset = 0, .data = as_bytes(bytes), .time = {5, 6}}});
  }
  // The first `batches` of another's history, of which the disk lost the rest; a new origin, to which the
  // other's may still be sent back.
  void begin_as_remains_of(MemoryMember& other, size_t batches) {
    auto cursor = other.journal_->read(1);
    for (size_t n = 0; n < batches; ++n) {
      auto logged = cursor->next();
      CHECK(logged && *logged);
      CHECK(apply(std::span(&(*logged)->batch, 1)));
    }
    former_ = other.origin_;
    next_inode_ = other.next_inode_;
  }
  void trim_all() { CHECK(journal_->trim(journal_->last() + 1)); }

  // --- to look at

  OriginId origin() const { return origin_; }
  std::optional<std::string> read_file(const std::string& name) {
    std::lock_guard lock(mutex_);
    fs::Outcome<fs::Dentry> dentry = head_.lookup(kRootInode, name);
    if (!dentry) return std::nullopt;
    std::string text(head_.stat(dentry->inode)->size, '\0');
    CHECK(head_.read(dentry->inode, 0, {reinterpret_cast<std::byte*>(text.data()), text.size()}) ==
          text.size());
    return text;
  }
  // Both are the sum over the bytes, so that a wrong sum on either side shows.
  Digest128 recomputed_digest() {
    std::lock_guard lock(mutex_);
    return head_.recompute_digest();
  }
  size_t installs() const { return installs_; }
  size_t applied_groups() const { return applied_groups_; }

  // --- to disturb

  // Changes the tree and tells nobody: divergence.
  void corrupt_silently() {
    std::lock_guard lock(mutex_);
    CHECK(head_.apply(fs::SetAttributes{
        .inode = kRootInode, .mask = fs::SetAttributes::kMode, .mode = 0700 + (++disturbed_ % 8)}));
  }
  // apply() answers this from now on.
  void fail_applies(std::optional<Error> error) {
    std::lock_guard lock(mutex_);
    apply_error_ = std::move(error);
  }
  // After every apply(), corrupt_silently().
  void diverge_always(bool on) { diverge_always_ = on; }
  void set_apply_delay_ms(uint64_t ms) { apply_delay_ms_ = ms; }
  void set_estimated_snapshot_bytes(uint64_t bytes) { estimated_snapshot_bytes_ = bytes; }
  void set_new(bool is_new) { is_new_override_ = is_new; }

  // --- Member

  VolumeId volume() const override {
    std::lock_guard lock(mutex_);
    return volume_;
  }
  std::string branch() const override { return "main"; }
  journal::Vector vector() const override {
    std::lock_guard lock(mutex_);
    return replayer_.applied();
  }
  bool is_new() const override {
    std::lock_guard lock(mutex_);
    return is_new_override_.value_or(replayer_.applied().empty());
  }
  Result<Moment> settle() override {
    std::lock_guard lock(mutex_);
    return moment();
  }
  Result<Pinned> pin() override {
    std::lock_guard lock(mutex_);
    return Pinned{.view = head_.view(), .moment = moment()};
  }
  uint64_t estimated_snapshot_bytes() const override {
    std::lock_guard lock(mutex_);
    if (estimated_snapshot_bytes_) return *estimated_snapshot_bytes_;
    return head_.usage().blocks * fs::kBlockSize + head_.usage().inodes * 128;
  }
  journal::Journal& journal() override { return *journal_; }
  Status adopt_volume(VolumeId volume) override {
    std::lock_guard lock(mutex_);
    CHECK(!volume_ && replayer_.applied().empty());
    volume_ = volume;
    return {};
  }
  Status apply(std::span<const journal::Batch> group) override {
    if (uint64_t ms = apply_delay_ms_) system_clock().sleep_ns(ms * 1'000'000);
    {
      std::lock_guard lock(mutex_);
      if (apply_error_) return std::unexpected(*apply_error_);
      journal::Vector before = replayer_.applied();
      Status done = replayer_.apply(head_, group);
      for (InodeId inode : head_.take_unlinked()) head_.remove_unlinked(inode);
      for (const journal::Batch& batch : group) {
        const journal::BatchHeader& header = batch.header();
        if (header.lsn > before.get(header.origin) && header.lsn <= replayer_.applied().get(header.origin))
          TRY(journal_->append(batch));
      }
      TRY(done);
    }
    ++applied_groups_;
    if (diverge_always_) corrupt_silently();
    return {};
  }
  bool would_take_back(const journal::Vector& peer) override {
    std::lock_guard lock(mutex_);
    return former_ && peer.covers(replayer_.applied()) && replayer_.applied().get(origin_) == 0;
  }
  Status take_back(const journal::Vector&, std::span<const journal::Batch> group, bool complete) override {
    if (replayer_.applied().get(origin_) != 0) return fail(Code::kReadOnly, "it has written since");
    took_back_completely_ |= complete;
    return apply(group);
  }
  bool took_back_completely() const { return took_back_completely_; }
  Result<std::vector<Mark>> marks() override {
    std::lock_guard lock(mutex_);
    return marks_;
  }
  void add_mark(Mark mark) {
    std::lock_guard lock(mutex_);
    marks_.push_back(std::move(mark));
  }
  Status sync() override {
    ++syncs_;
    return sync_error_ ? Status(std::unexpected(*sync_error_)) : Status();
  }
  size_t syncs() const { return syncs_; }
  void fail_syncs(Error error) { sync_error_ = std::move(error); }
  Status install(const fs::View& tree, const journal::Position& position, uint64_t lamport,
                 std::span<const Mark> marks) override {
    std::lock_guard lock(mutex_);
    marks_.assign(marks.begin(), marks.end());
    head_ = fs::Head(tree);
    replayer_ = Replayer(position.vector, lamport);
    ++installs_;
    return journal_->restart_at(journal_->last() + 1, position.vector);
  }

 private:
  Moment moment() {
    head_.settle();
    return {.position = {.vector = replayer_.applied(), .digest = head_.digest()},
            .lamport = replayer_.lamport(),
            .log_index = journal_->last()};
  }

  mutable std::mutex mutex_;
  VolumeId volume_;
  OriginId origin_, former_;
  bool took_back_completely_ = false;
  fs::Head head_;
  Replayer replayer_;
  std::unique_ptr<journal::Journal> journal_;
  std::vector<Mark> marks_;
  uint64_t next_inode_ = 2;
  uint32_t disturbed_ = 0;
  std::optional<Error> apply_error_, sync_error_;
  std::atomic<size_t> syncs_{0};
  std::optional<uint64_t> estimated_snapshot_bytes_;
  std::optional<bool> is_new_override_;
  std::atomic<bool> diverge_always_{false};
  std::atomic<uint64_t> apply_delay_ms_{0};
  std::atomic<size_t> installs_{0}, applied_groups_{0};
};

}  // namespace reprise::replay
