#include "adapters/fuse/holes.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace reprise::fuse {
namespace {

// How often what was a hole may have become data meanwhile. After that the file is all data, which is never
// wrong.
constexpr int kAttempts = 32;

void reply(fuse_req_t request, const fs::Outcome<uint64_t>& answer) {
  if (answer) {
    fuse_reply_lseek(request, static_cast<off_t>(*answer));
  } else {
    fuse_reply_err(request, static_cast<int>(answer.error()));
  }
}

}  // namespace

Holes::Found Holes::find(const Question& question) const {
  auto attributes = filesystem_.get_attributes(question.inode);
  if (!attributes) return {std::unexpected(attributes.error())};
  const uint64_t size = attributes->size;
  auto data_from = [&](uint64_t offset) {
    auto data = filesystem_.seek_data(question.inode, offset);
    return !data && data.error() == fs::Errno{ENXIO} ? fs::Outcome<uint64_t>(size) : data;
  };
  if (question.whence == SEEK_DATA) {
    auto data = filesystem_.seek_data(question.inode, question.offset);
    if (!data && data.error() != fs::Errno{ENXIO}) return {data};
    return {data, question.offset, std::max(question.offset, data.value_or(size))};
  }
  auto hole = filesystem_.seek_hole(question.inode, question.offset);
  if (!hole || *hole >= size) return {hole};
  auto end = data_from(*hole);
  return {hole, *hole, std::max(*hole, end.value_or(*hole))};
}

Holes::Found Holes::find_written_back(const Question& question) {
  Found found = find(question);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (found.hole == found.hole_end) return found;
    if (!cache_.write_back(question.inode, found.hole, found.hole_end - found.hole))
      return {fs::errno_of(EIO)};
    Found again = find(question);
    if (again == found) return found;
    found = again;
  }
  auto attributes = filesystem_.get_attributes(question.inode);
  if (!attributes) return {std::unexpected(attributes.error())};
  if (question.offset >= attributes->size) return {fs::errno_of(ENXIO)};
  return {question.whence == SEEK_DATA ? question.offset : attributes->size};
}

void Holes::answer(fuse_req_t request, InodeId inode, uint64_t offset, int whence) {
  Question question{request, inode, offset, whence};
  Found found = find(question);
  if (found.hole == found.hole_end) return reply(request, found.answer);
  std::lock_guard lock(mutex_);
  if (stopping_) return reply(request, found.answer);
  if (!thread_.joinable()) thread_ = std::thread([this] { serve(); });
  questions_.push_back(question);
  asked_.notify_one();
}

void Holes::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    asked_.wait(lock, [&] { return stopping_ || !questions_.empty(); });
    if (questions_.empty()) return;
    Question question = questions_.front();
    questions_.pop_front();
    lock.unlock();
    reply(question.request, find_written_back(question).answer);
    lock.lock();
  }
}

void Holes::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    asked_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

}  // namespace reprise::fuse
