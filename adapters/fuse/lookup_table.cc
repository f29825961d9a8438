#include "adapters/fuse/lookup_table.h"

namespace reprise::fuse {
namespace {

// How long a request may be under way to us, and how long an answer to whoever asked. Far more than either
// takes unless the machine stands still; and a machine that does would also have to let a third party look
// during the few nanoseconds in which attributes are taken in.
constexpr uint64_t kUnderWay_ns = 50'000'000;

}  // namespace

// The root is known from the start, and never forgotten.
LookupTable::LookupTable(fs::Filesystem& filesystem) : filesystem_(filesystem) {
  add(kRootInode);
}

LookupTable::~LookupTable() {
  for (Shard& shard : shards_) {
    for (const auto& [inode, entry] : shard.entries) filesystem_.unpin(inode);
  }
}

bool LookupTable::add(InodeId inode) {
  Shard& shard = shard_of(inode);
  std::lock_guard lock(shard.mutex);
  Entry& entry = shard.entries[inode];
  if (entry.count++ != 0) return false;
  // Under the shard's lock, so that nobody takes the inode for pinned before it is.
  filesystem_.pin(inode);
  return true;
}

void LookupTable::remove(InodeId inode, uint64_t count) {
  {
    Shard& shard = shard_of(inode);
    std::lock_guard lock(shard.mutex);
    auto found = shard.entries.find(inode);
    if (found == shard.entries.end()) return;  // more than it was told of
    if (found->second.count > count) {
      found->second.count -= count;
      return;
    }
    if (inode == kRootInode) return;
    if (found->second.changed_ns != 0) --unsettled_;
    shard.entries.erase(found);
  }
  // Outside it: the last unpin may take the filesystem's lock, under which add() is called as well. Pins are
  // counted, so an add() in between is not undone.
  filesystem_.unpin(inode);
}

bool LookupTable::knows(InodeId inode) const {
  const Shard& shard = shard_of(inode);
  std::lock_guard lock(shard.mutex);
  return shard.entries.contains(inode);
}

bool LookupTable::unsettle(InodeId inode, uint64_t now_ns) {
  Shard& shard = shard_of(inode);
  std::lock_guard lock(shard.mutex);
  auto found = shard.entries.find(inode);
  if (found == shard.entries.end()) return false;
  Entry& entry = found->second;
  if (entry.changed_ns == 0) ++unsettled_;
  entry.changed_ns = now_ns;
  entry.answered_ns = 0;
  return true;
}

bool LookupTable::settled(InodeId inode, uint64_t now_ns) {
  if (unsettled_.load() == 0) return true;
  Shard& shard = shard_of(inode);
  std::lock_guard lock(shard.mutex);
  auto found = shard.entries.find(inode);
  if (found == shard.entries.end() || found->second.changed_ns == 0) return true;
  Entry& entry = found->second;
  // The kernel does not use the answer to a request that is older than the drop.
  if (now_ns - entry.changed_ns < kUnderWay_ns) return false;
  if (entry.answered_ns == 0) entry.answered_ns = now_ns;
  if (now_ns - entry.answered_ns < kUnderWay_ns) return false;
  entry.changed_ns = 0;
  --unsettled_;
  return true;
}

}  // namespace reprise::fuse
