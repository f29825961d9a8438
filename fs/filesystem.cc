#include "fs/filesystem.h"

#include <utility>

#include "base/check.h"
#include "fs/filesystem_call.h"
#include "fs/lazy_node.h"
#include "fs/permission.h"

namespace reprise::fs {
namespace {

constexpr size_t kOperationBytes = 128;  // about what an operation takes without its names and bytes

class LocalInodeIds final : public InodeIdSource {
 public:
  InodeId next() override { return InodeId{++last_}; }

 private:
  uint64_t last_ = kRootInode.value;
};

}  // namespace

std::unique_ptr<InodeIdSource> local_inode_ids() {
  return std::make_unique<LocalInodeIds>();
}

Outcome<void> check_name(std::string_view name) {
  if (name.empty()) return errno_of(ENOENT);
  if (name.size() > kNameMax) return errno_of(ENAMETOOLONG);
  if (name.find('/') != name.npos || name.find('\0') != name.npos) return errno_of(EINVAL);
  return {};
}

// --- one changing call

Outcome<void> Filesystem::Call::begin(size_t bytes) {
  if (filesystem_.read_only()) return errno_of(EROFS);
  sink_ = filesystem_.sink_.load(std::memory_order_acquire);
  if (sink_ != nullptr) TRY(sink_->reserve(bytes + kOperationBytes));  // may wait, so without the lock
  lock_ = std::unique_lock(filesystem_.mutex_);
  if (filesystem_.read_only()) {
    lock_.unlock();
    return errno_of(EROFS);
  }
  now_ = filesystem_.clock_.coarse_realtime();
  return {};
}

Outcome<void> Filesystem::Call::apply(const Operation& operation) {
  TRY(apply_unrecorded(operation));
  record(operation);
  return {};
}

Outcome<void> Filesystem::Call::apply_to(uint64_t links, const Operation& operation) {
  return links > 0 ? apply(operation) : apply_unrecorded(operation);
}

Outcome<void> Filesystem::Call::apply_unrecorded(const Operation& operation) {
  Outcome<void> applied = filesystem_.head_.apply_resolved(operation);
  CHECK(applied || !changed_);  // a call is never left half done
  if (applied) changed_ = true;
  return applied;
}

void Filesystem::Call::record(const Operation& operation) {
  if (sink_ == nullptr) return;
  sink_->record(operation, caller_.label);
  recorded_ = uncommitted_ = true;
}

void Filesystem::Call::pause() {
  if (!std::exchange(recorded_, false)) return;
  auto ended = sink_->end_call();
  if (ended_) ended_ = ended;
}

Outcome<void> Filesystem::Call::commit() {
  if (std::exchange(changed_, false)) filesystem_.reap_unlinked();
  pause();
  lock_.unlock();
  TRY(ended_);
  return std::exchange(uncommitted_, false) ? sink_->commit() : Outcome<void>{};
}

Filesystem::Call::~Call() {
  CHECK(!recorded_);
  if (changed_) filesystem_.reap_unlinked();
}

// --- the filesystem as a whole

Filesystem::Filesystem(Head head, Clock& clock, InodeIdSource& ids, OperationSink* sink)
    : head_(std::move(head)), clock_(clock), ids_(ids), sink_(sink) {}

void Filesystem::set_sink(OperationSink* sink) {
  sink_.store(sink, std::memory_order_release);
}

void Filesystem::set_read_only(bool read_only) {
  read_only_.store(read_only, std::memory_order_relaxed);
}

Outcome<Attributes> Filesystem::stat_handle(InodeId inode) const {
  auto attributes = head_.stat(inode);
  if (!attributes && attributes.error() == Errno{ENOENT}) attributes = errno_of(ESTALE);
  return attributes;
}

Outcome<Filesystem::Found> Filesystem::find_handle(InodeId inode) const {
  const Inode* found = head_.find(inode);
  if (found == nullptr) return absent(ESTALE);
  return Found{inode, found};
}

Outcome<Filesystem::Found> Filesystem::find_directory(const Caller& caller, InodeId inode, int wanted) const {
  Found found = TRY(find_handle(inode));
  if (!S_ISDIR(found->mode)) return errno_of(ENOTDIR);
  TRY(check_access(caller, *found, wanted));
  return found;
}

StatFs Filesystem::stat_fs() {
  std::shared_lock lock(mutex_);
  Usage used = head_.usage();
  used.blocks += reservations_.total();
  const SetLimits& limits = head_.limits();
  auto left = [](uint64_t total, uint64_t taken) { return taken < total ? total - taken : 0; };
  // Without limits it may well be said to hold as much as one file may.
  const uint64_t blocks = limits.bytes == 0 ? kFileBlocksMax : limits.bytes / kBlockSize;
  const uint64_t inodes = limits.inodes == 0 ? kFileBlocksMax : limits.inodes;
  return {blocks, left(blocks, used.blocks), inodes, left(inodes, used.inodes)};
}

Outcome<void> Filesystem::access(const Caller& caller, InodeId inode, int wanted) {
  std::shared_lock lock(mutex_);
  Found found = TRY(find_handle(inode));
  bool holds_data = S_ISREG(found->mode) || S_ISDIR(found->mode) || S_ISLNK(found->mode);
  if ((wanted & W_OK) != 0 && holds_data && read_only()) return errno_of(EROFS);
  return check_access(caller, *found, wanted);
}

Outcome<void> Filesystem::barrier(std::string_view name, std::string_view label) {
  if (!name.empty() && !is_mark(name)) return errno_of(EINVAL);
  Caller caller{.label = label};
  Call call(*this, caller);
  TRY(call.begin(name.size()));
  TRY(call.apply(Barrier{.name = name, .time = call.now()}));
  return call.commit();
}

Outcome<void> Filesystem::set_limits(const SetLimits& limits, std::string_view label) {
  Caller caller{.label = label};
  Call call(*this, caller);
  TRY(call.begin(0));
  TRY(call.apply(limits));
  return call.commit();
}

SetLimits Filesystem::limits() {
  std::shared_lock lock(mutex_);
  return head_.limits();
}

View Filesystem::view() {
  std::shared_lock lock(mutex_);
  return head_.view();
}

Digest128 Filesystem::digest() {
  std::unique_lock lock(mutex_);
  head_.settle();
  return head_.digest();
}

Usage Filesystem::usage() {
  std::shared_lock lock(mutex_);
  return head_.usage();
}

void Filesystem::replay(const std::function<void(Head&)>& change) {
  LaterFrees later_frees;
  std::unique_lock lock(mutex_);
  change(head_);
  reservations_.clear();  // nobody else has kept them
  reap_unlinked();
}

std::optional<View> Filesystem::replay_aside(
    const std::function<bool(Head&, std::vector<InodeId>&)>& change) {
  LaterFrees later_frees;
  std::unique_lock lock(mutex_);
  View old = head_.view();
  Head changed(old);
  std::vector<InodeId> unlinked;
  if (!change(changed, unlinked)) return std::nullopt;
  head_ = std::move(changed);
  reservations_.clear();
  reap_unlinked();
  for (InodeId inode : unlinked) remove_or_keep(inode);
  return old;
}

View Filesystem::install(const View& tree) {
  std::unique_lock lock(mutex_);
  View old = head_.view();
  head_ = Head(tree);
  reservations_.clear();  // what they were made for may be another file's by now
  auto has_no_name = [&](InodeId inode) {
    auto attributes = head_.stat(inode);
    return attributes && attributes->nlink == 0;
  };
  std::erase_if(linkable_, [&](InodeId inode) { return !has_no_name(inode); });
  for (PinShard& shard : pins_) {
    std::lock_guard shard_lock(shard.mutex);
    for (auto& [inode, pin] : shard.pins) pin.orphan = has_no_name(inode);
  }
  return old;
}

uint64_t Filesystem::evict(const View& kept, uint64_t bytes, InodeId& from) {
  std::vector<Node*> dropped;
  uint64_t freed;
  {
    LaterFrees later_frees;
    std::unique_lock lock(mutex_);
    freed = head_.evict(kept, bytes, from, dropped);
  }
  for (Node* node : dropped) release(node);
  return freed;
}

// --- pins

void Filesystem::pin(InodeId inode, uint64_t count) {
  PinShard& shard = shard_of(inode);
  std::lock_guard lock(shard.mutex);
  if (auto found = shard.pins.find(inode); found != shard.pins.end()) {
    found->second.count += count;
  } else if (shard.spare) {
    shard.spare.key() = inode;
    shard.spare.mapped() = {.count = count};
    shard.pins.insert(std::move(shard.spare));
  } else {
    shard.pins[inode].count = count;
  }
}

void Filesystem::unpin(InodeId inode, uint64_t count) {
  // A directory that goes lets go of the one it was in, and so on up.
  while (inode) {
    InodeId above = unpin_alone(inode, count);
    inode = above;
    count = 1;
  }
}

// Returns the directory that was kept for its sake and need not be any more.
InodeId Filesystem::unpin_alone(InodeId inode, uint64_t count) {
  Pin last;
  {
    PinShard& shard = shard_of(inode);
    std::lock_guard lock(shard.mutex);
    auto found = shard.pins.find(inode);
    CHECK(found != shard.pins.end() && found->second.count >= count);
    found->second.count -= count;
    if (found->second.count > 0) return {};
    last = found->second;
    shard.spare = shard.pins.extract(found);
  }
  if (last.orphan) {
    LaterFrees later_frees;
    std::unique_lock lock(mutex_);
    remove_or_keep(inode);
  }
  return last.above;
}

bool Filesystem::keep_orphan(InodeId inode) {
  PinShard& shard = shard_of(inode);
  InodeId above;
  {
    std::lock_guard lock(shard.mutex);
    auto found = shard.pins.find(inode);
    if (found == shard.pins.end()) return false;
    found->second.orphan = true;
    // ".." of a directory that is gone leads to the one it was in, gone or not.
    above = head_.parent_of(inode).value_or(InodeId{});
    if (!above || found->second.above) return true;
    found->second.above = above;
  }
  pin(above);
  return true;
}

void Filesystem::remove_or_keep(InodeId inode) {
  if (keep_orphan(inode)) return;
  reservations_.remove_all(inode);
  head_.remove_unlinked(inode);
  linkable_.erase(inode);
}

void Filesystem::reap_unlinked() {
  while (auto inode = head_.take_one_unlinked()) remove_or_keep(*inode);
}

}  // namespace reprise::fs
