#include "journal/recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <utility>

namespace reprise::journal {
namespace {

Error corrupt(std::string what) {
  return Error(Code::kCorrupt, std::move(what));
}

// Files of segments that were being begun when the process died.
Status remove_unfinished(Directory& directory) {
  constexpr std::string_view kUnfinished = ".new";
  for (const std::string& name : TRY(directory.list())) {
    if (!name.ends_with(kUnfinished)) continue;
    if (parse_segment_name(std::string_view(name).substr(0, name.size() - kUnfinished.size())))
      TRY(directory.unlink(name));
  }
  return {};
}

struct OpenedSegments {
  std::vector<std::unique_ptr<SegmentReader>> readers;  // ascending
  std::vector<uint64_t> before_restart;                 // no part of the log any more
};

Result<OpenedSegments> open_segments(Directory& directory, const JournalIdentity& identity) {
  OpenedSegments opened;
  std::vector<uint64_t> sequences = TRY(list_segments(directory));
  while (!sequences.empty()) {
    opened.readers.push_back(TRY(open_own_segment(directory, sequences.back(), identity)));
    sequences.pop_back();
    if (opened.readers.back()->header().restart) break;
  }
  std::reverse(opened.readers.begin(), opened.readers.end());
  opened.before_restart = std::move(sequences);
  return opened;
}

Segment segment_of(const SegmentReader& reader, uint64_t bytes_before) {
  const SegmentHeader& header = reader.header();
  Segment segment{.sequence = header.sequence, .first_index = header.first_index, .covered = header.covered};
  segment.note_point({header.first_index, reader.state().offset, bytes_before});
  segment.compressed = reader.compressed();
  for (ReadPoint point : reader.points()) {
    point.bytes_before += bytes_before;
    segment.note_point(point);
  }
  return segment;
}

// The last frame of a segment that another follows. Its batches are read only when somebody asks for them.
Result<Frame> read_seal(SegmentReader& reader, LogIndex next_index) {
  uint64_t first_frame = reader.state().offset;
  if (reader.limit() >= first_frame + kSummaryFrameBytes) {
    reader.seek(reader.limit() - kSummaryFrameBytes, next_index);
    auto frame = reader.next();
    if (frame && *frame && (*frame)->header.kind == FrameKind::kSeal) return **frame;
    if (!frame && frame.error().code() != Code::kCorrupt) return std::unexpected(frame.error());
  }
  return std::unexpected(corrupt(fmt::format(
      "{}: expected a seal at its end, before log index {}, found none", reader.path(), next_index)));
}

// All but the last: from their headers and seals alone.
Status pass_sealed(const std::vector<std::unique_ptr<SegmentReader>>& readers, RecoveredLog& log) {
  for (size_t i = 0; i + 1 < readers.size(); ++i) {
    SegmentReader& reader = *readers[i];
    const SegmentHeader& next = readers[i + 1]->header();
    log.segments.push_back(segment_of(reader, log.batch_bytes));
    if (next.sequence != reader.header().sequence + 1) {
      return std::unexpected(
          corrupt(fmt::format("{}: expected segment {} after it, found segment {}", reader.path(),
                              reader.header().sequence + 1, next.sequence)));
    }
    Frame seal = TRY(read_seal(reader, next.first_index));
    TRY(check_succession(*readers[i + 1], reader.header().sequence + 1, seal.header.index,
                         extend_chain(seal.summary.chain, seal.header)));
    log.batch_bytes += seal.summary.batch_bytes;
  }
  return {};
}

// Follows the frames of a segment to say where those begin that no later frame calls durable.
class UnsettledFrames {
 public:
  void pass(const Frame& frame) {
    frames_.emplace_back(frame.header.index, frame.offset);
    settle(frame.header.durable_through);
  }
  void settle(LogIndex durable_through) {
    while (!frames_.empty() && frames_.front().first <= durable_through) frames_.pop_front();
  }
  uint64_t begin(uint64_t end) const { return frames_.empty() ? end : frames_.front().second; }

 private:
  std::deque<std::pair<LogIndex, uint64_t>> frames_;  // log index, offset
};

// Every frame of the last segment, up to its end or to the damage that is returned.
Result<std::optional<Error>> pass_last(SegmentReader& reader, RecoveredLog& log, UnsettledFrames& unsettled) {
  log.segments.push_back(segment_of(reader, log.batch_bytes));
  log.vector = reader.header().covered;
  uint64_t bytes_before = log.batch_bytes;
  while (!log.sealed) {
    auto frame = reader.next();
    if (!frame && frame.error().code() == Code::kCorrupt) return std::optional(frame.error());
    if (!frame) return std::unexpected(frame.error());
    if (!*frame) break;
    unsettled.pass(**frame);
    log.recovery.clean_close = (*frame)->header.kind == FrameKind::kClose;
    log.sealed = (*frame)->header.kind == FrameKind::kSeal;
    if ((*frame)->is_batch()) {
      TRY(follow(log.vector, **frame, reader.path()));
      if (log.segments.back().compressed) continue;
      uint64_t so_far = bytes_before + reader.state().summary.batch_bytes;
      log.segments.back().note_point({reader.state().next_index, reader.state().offset, so_far});
    }
  }
  log.batch_bytes = bytes_before + reader.state().summary.batch_bytes;
  if (reader.compressed() && !log.sealed)
    return std::optional(reader.damaged("the end of a compressed segment without a seal").error());
  if (log.sealed && reader.state().offset < reader.limit()) {
    return std::optional(
        Error(Code::kCorrupt, fmt::format("{}: expected its end after the seal at offset {}, found {} bytes",
                                          reader.path(), reader.state().offset, reader.limit())));
  }
  return std::optional<Error>();
}

// How many whole batches lie behind this offset. Each byte is read once, whatever lengths are claimed.
Result<uint64_t> batches_behind(SegmentReader& reader, uint64_t offset) {
  uint64_t batches = 0;
  while (auto frame = TRY(reader.find_frame_after(offset))) {
    offset = frame->offset;
    reader.seek(offset, frame->header.index);
    auto whole = reader.next();
    if (!whole && whole.error().code() != Code::kCorrupt) return std::unexpected(whole.error());
    if (whole && frame->is_batch()) ++batches;
    offset = frame->end() - 8;
  }
  return batches;
}

Status cut_tail(File& file, const SegmentReader& reader, Recovery& recovery) {
  recovery.cut_offset = reader.state().offset;
  recovery.cut_bytes = reader.limit() - recovery.cut_offset;
  recovery.cut_file = reader.path();
  recovery.clean_close = false;
  return file.resize(recovery.cut_offset);
}

// Puts on the disk what was read. It may be in the kernel's cache only, if the process was killed; and if a
// sync failed there, the kernel may call pages clean that it never wrote, so that another sync would do
// nothing: they are written once more. A file or a removal whose directory was not synced is made to last
// too.
Status settle(Directory& directory, File& file, uint64_t from, uint64_t to) {
  constexpr uint64_t kPieceBytes = 1 << 20;
  Bytes piece;
  for (uint64_t at = from; at < to; at += piece.size()) {
    piece.resize(std::min(kPieceBytes, to - at));
    if (TRY(file.pread(piece, at)) != piece.size()) {
      return fail(Code::kIo, fmt::format("{}: expected {} bytes at offset {}, found the end of the file",
                                         file.path(), piece.size(), at));
    }
    TRY(file.pwrite(piece, at));
  }
  TRY(file.sync_data());
  return directory.sync();
}

}  // namespace

Result<std::vector<uint64_t>> list_segments(Directory& directory) {
  std::vector<uint64_t> sequences;
  for (const std::string& name : TRY(directory.list())) {
    if (auto sequence = parse_segment_name(name)) sequences.push_back(*sequence);
  }
  std::sort(sequences.begin(), sequences.end());
  return sequences;
}

Result<std::unique_ptr<SegmentReader>> open_own_segment(Directory& directory, uint64_t sequence,
                                                        const JournalIdentity& identity) {
  auto file = TRY(directory.open(segment_name(sequence), OpenMode::kRead));
  auto reader = TRY(SegmentReader::open(std::move(file)));
  const SegmentHeader& header = reader->header();
  if (header.volume != identity.volume) {
    return fail(Code::kWrongVolume, fmt::format("{}: expected volume {}, found {}", reader->path(),
                                                identity.volume.to_string(), header.volume.to_string()));
  }
  if (header.branch != identity.branch || header.sequence != sequence) {
    return fail(
        Code::kCorrupt,
        fmt::format("{}: expected segment {} of branch {}, found segment {} of branch {}", reader->path(),
                    sequence, identity.branch, header.sequence, printable(header.branch)));
  }
  return reader;
}

Status check_succession(const SegmentReader& next, uint64_t sequence, LogIndex next_index,
                        std::optional<uint64_t> chain) {
  const SegmentHeader& found = next.header();
  uint64_t previous = chain.value_or(found.previous);
  if (found.sequence == sequence && found.first_index == next_index && found.previous == previous) return {};
  return std::unexpected(corrupt(fmt::format(
      "{}: expected segment {} from log index {} after chain value {:016x}, found segment {} from log index "
      "{} after {:016x}",
      next.path(), sequence, next_index, previous, found.sequence, found.first_index, found.previous)));
}

Status follow(Vector& vector, const Frame& frame, const std::string& path) {
  const FrameHeader& header = frame.header;
  Lsn expected = vector.get(header.origin) + 1;
  if (header.lsn != expected) {
    return std::unexpected(corrupt(
        fmt::format("{}: at offset {}, log index {}: expected LSN {} of origin {}, found {}", path,
                    frame.offset, header.index, expected, header.origin.to_short_string(), header.lsn)));
  }
  vector.set(header.origin, header.lsn);
  return {};
}

std::optional<Error> damage_below_durable(SegmentReader& reader, const Error& damage, LogIndex durable_hint) {
  // All of it was on the disk before it was compressed.
  if (reader.compressed()) return corrupt(damage.message());
  const LogIndex lost = reader.state().next_index;  // the first that would be
  if (durable_hint >= lost) {
    return corrupt(
        fmt::format("{}; but log index {} is known to be on the disk", damage.message(), durable_hint));
  }
  auto frame = reader.find_frame_after(reader.state().offset);
  while (frame && *frame) {
    const FrameHeader& header = (*frame)->header;
    if (header.durable_through >= lost) {
      return corrupt(fmt::format("{}; but the frame at offset {} says that log index {} was on the disk",
                                 damage.message(), (*frame)->offset, header.durable_through));
    }
    // No batch is missing, so what was damaged is a close: always on the disk before anything is put behind
    // it.
    if (header.index <= lost) {
      return corrupt(fmt::format("{}; but log index {} follows at offset {}", damage.message(), header.index,
                                 (*frame)->offset));
    }
    frame = reader.find_frame_after((*frame)->offset);
  }
  if (!frame) return frame.error();
  return std::nullopt;
}

namespace {

Result<RecoveredLog> recover(Directory& directory, const JournalIdentity& identity, LogIndex durable_hint) {
  RecoveredLog log;
  TRY(remove_unfinished(directory));
  OpenedSegments opened = TRY(open_segments(directory, identity));
  if (opened.readers.empty()) {
    if (durable_hint == 0) return log;
    return std::unexpected(Error(
        Code::kCorrupt,
        fmt::format("{}: expected segments up to log index {}, found none", directory.path(), durable_hint)));
  }
  for (const auto& reader : opened.readers) {
    if (reader->header().features.read_compat == 0) continue;
    return fail(Code::kUnsupported,
                fmt::format("{}: expected no features needed for writing, found bits {:#x}", reader->path(),
                            reader->header().features.read_compat));
  }
  TRY(pass_sealed(opened.readers, log));
  SegmentReader& last = *opened.readers.back();
  UnsettledFrames unsettled;
  std::optional<Error> damage = TRY(pass_last(last, log, unsettled));
  // One that is compressed has ended, and is not written to.
  log.file = TRY(directory.open(segment_name(last.header().sequence),
                                last.compressed() ? OpenMode::kRead : OpenMode::kReadWrite));
  if (damage) {
    if (auto error = damage_below_durable(last, *damage, durable_hint)) return std::unexpected(*error);
    if (log.sealed) return std::unexpected(*damage);  // nothing is ever written behind a seal
    auto beyond = TRY(open_own_segment(directory, last.header().sequence, identity));
    log.recovery.cut_batches = TRY(batches_behind(*beyond, last.state().offset));
    TRY(cut_tail(*log.file, last, log.recovery));
  } else if (durable_hint >= last.state().next_index) {
    return std::unexpected(
        *damage_below_durable(last, last.damaged("the end of the file").error(), durable_hint));
  }
  // From here on all of it counts as durable.
  unsettled.settle(durable_hint);
  uint64_t end = last.state().offset;
  TRY(settle(directory, *log.file, last.compressed() ? end : unsettled.begin(end), end));
  for (uint64_t sequence : opened.before_restart) {
    TRY(directory.unlink(segment_name(sequence)));
    TRY(directory.sync());
  }
  log.last_header = last.header();
  log.state = last.state();
  log.state.sealed = log.sealed;
  log.recovery.begins_anew = opened.readers.front()->header().restart;
  log.recovery.first = log.segments.front().first_index;
  log.recovery.last = log.state.next_index - 1;
  return log;
}

}  // namespace

Error offer_repair(const Error& error) {
  if (error.code() != Code::kCorrupt) return error;
  return Error(error.code(), error.message() + "; `reprise repair` takes it out and keeps it aside");
}

Result<RecoveredLog> recover_log(Directory& directory, const JournalIdentity& identity,
                                 LogIndex durable_hint) {
  auto log = recover(directory, identity, durable_hint);
  if (!log) return std::unexpected(offer_repair(log.error()));
  return log;
}

}  // namespace reprise::journal
