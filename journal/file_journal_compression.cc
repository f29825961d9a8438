// The part of FileJournal that compresses segments which have ended.
#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "journal/compressed_segment.h"
#include "journal/file_journal.h"

namespace reprise::journal {
namespace {

constexpr auto kRetryTime = std::chrono::seconds(1);  // without space

}  // namespace

void FileJournal::wake_compressor() {
  if (!options_.threads || !options_.compress || !compresses_ || compressor_ends_ ||
      next_to_compress() == nullptr)
    return;
  if (!compressor_.joinable()) compressor_ = std::thread([this] { run_compressor(); });
  ended_.notify_one();
}

// The oldest, but never the last, which is being written.
Segment* FileJournal::next_to_compress() {
  auto end = segments_.empty() ? segments_.end() : segments_.end() - 1;
  auto found =
      std::find_if(segments_.begin(), end, [](const Segment& s) { return !s.compressed && !s.stays; });
  return found == end ? nullptr : &*found;
}

Segment* FileJournal::find_segment(uint64_t sequence) {
  auto found = std::ranges::find(segments_, sequence, &Segment::sequence);
  return found == segments_.end() ? nullptr : &*found;
}

void FileJournal::run_compressor() {
  Lock lock(mutex_);
  while (!compressor_ends_ && compresses_ && !failure_) {
    Segment* next = next_to_compress();
    if (next == nullptr) {
      ended_.wait(lock);
      continue;
    }
    if (!compress_one(lock, next->sequence))
      ended_.wait_for(lock, kRetryTime, [&] { return compressor_ends_.load(); });
  }
}

bool FileJournal::compress_one(Lock& lock, uint64_t sequence) {
  Status status = compress(lock, sequence);
  if (status) return true;
  note_compression(sequence, status.error());
  // Without space it is tried again: something may have been trimmed by then.
  return status.error().code() != Code::kNoSpace && status.error().code() != Code::kCancelled;
}

Status FileJournal::compress(Lock& lock, uint64_t sequence) {
  lock.unlock();
  auto points = compress_segment(*directory_, sequence, [&] {
    return compressor_ends_.load() || refuses_.load();  // nothing is written after a failure
  });
  lock.lock();
  if (!points) return std::unexpected(points.error());
  if (find_segment(sequence) == nullptr) {  // trimmed meanwhile
    lock.unlock();
    Status removed = directory_->unlink(compressed_copy_name(sequence));
    lock.lock();
    return removed;
  }
  replacing_ = true;
  lock.unlock();
  Status replaced = replace_by_compressed(*directory_, sequence);
  lock.lock();
  replacing_ = false;
  settled_.notify_all();
  TRY(std::move(replaced));
  Segment* segment = find_segment(sequence);
  CHECK(segment != nullptr);  // nobody drops it while replacing_ is set
  segment->compressed = true;
  uint64_t bytes_before = segment->points.front().bytes_before;
  for (ReadPoint point : *points) {
    point.bytes_before += bytes_before;
    segment->note_point(point);
  }
  return {};
}

void FileJournal::note_compression(uint64_t sequence, const Error& failure) {
  if (failure.code() == Code::kCancelled) return;
  Segment* segment = find_segment(sequence);
  if (failure.code() == Code::kNotFound && segment == nullptr) return;  // trimmed meanwhile
  compression_failure_ = failure;
  if (failure.code() == Code::kCorrupt) {
    if (segment != nullptr) segment->stays = true;
  } else if (failure.code() != Code::kNoSpace) {
    compresses_ = false;
  }
}

Result<JournalFiles> journal_files(Directory& directory, const JournalIdentity& identity) {
  JournalFiles files;
  for (uint64_t sequence : TRY(list_segments(directory))) {
    auto reader = TRY(open_own_segment(directory, sequence, identity));
    if (reader->header().restart) files = {.begins_anew = true};  // what is before it is no part of the log
    auto file = TRY(directory.open(segment_name(sequence), OpenMode::kRead));
    files.segments.push_back({.first_index = reader->header().first_index,
                              .bytes = TRY(file->size()),
                              .compressed = reader->compressed()});
    files.bytes += files.segments.back().bytes;
    files.compressed += reader->compressed() ? 1 : 0;
  }
  return files;
}

Result<JournalFiles> FileJournal::files() const {
  JournalFiles files;
  std::vector<uint64_t> sequences;
  {
    Lock lock(mutex_);
    files.compression_failure = compression_failure_;
    files.waiting = pending_bytes_;
    for (const Segment& segment : segments_) {
      sequences.push_back(segment.sequence);
      files.segments.push_back({.first_index = segment.first_index, .compressed = segment.compressed});
      files.compressed += segment.compressed ? 1 : 0;
    }
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    auto file = directory_->open(segment_name(sequences[i]), OpenMode::kRead);
    if (!file && file.error().code() == Code::kNotFound) continue;  // trimmed meanwhile: it takes nothing
    if (!file) return std::unexpected(file.error());
    files.segments[i].bytes = TRY((*file)->size());
    files.bytes += files.segments[i].bytes;
  }
  return files;
}

}  // namespace reprise::journal
