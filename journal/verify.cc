#include "journal/verify.h"

#include <fmt/format.h>

#include <algorithm>

#include "journal/recovery.h"

namespace reprise::journal {
namespace {

// Where the first problem is: in which of the segments, and from which byte on.
struct Walk {
  JournalReport report;
  std::vector<uint64_t> sequences;  // of the files looked at, ascending
  size_t damaged = 0;               // index into sequences, if there is a problem
  uint64_t damaged_offset = 0;      // 0: not even its header belongs here
};

class Walker {
 public:
  Walker(Directory& directory, const JournalIdentity& identity, LogIndex durable_hint,
         const JournalProgress& progress)
      : directory_(directory), identity_(identity), durable_hint_(durable_hint), progress_(progress) {}

  Result<Walk> run() {
    TRY(list());
    for (size_t i = 0; i < walk_.sequences.size() && !walk_.report.problem; ++i) TRY(pass_segment(i));
    LogIndex end = walk_.report.last + 1;
    if (!walk_.report.problem && durable_hint_ >= end) {
      walk_.report.problem =
          Error(Code::kCorrupt,
                fmt::format("{}: expected log index {}, known to be on the disk, found the end at {}",
                            last_file(), durable_hint_, end - 1));
      walk_.damaged = walk_.sequences.size();
    }
    return std::move(walk_);
  }

 private:
  // The files of the log, from the last restart on.
  Status list() {
    walk_.sequences = TRY(list_segments(directory_));
    for (size_t i = walk_.sequences.size(); i-- > 0;) {
      auto reader = open_own_segment(directory_, walk_.sequences[i], identity_);
      if (!reader || !(*reader)->header().restart) continue;
      walk_.sequences.erase(walk_.sequences.begin(), walk_.sequences.begin() + static_cast<ptrdiff_t>(i));
      break;
    }
    for (uint64_t sequence : walk_.sequences) {
      // One that cannot be opened is reported when it is its turn.
      if (auto reader = open_own_segment(directory_, sequence, identity_)) all_bytes_ += (*reader)->limit();
    }
    return {};
  }

  std::string last_file() const {
    std::string path = directory_.path();
    return walk_.sequences.empty() ? path : path + "/" + segment_name(walk_.sequences.back());
  }

  void found(size_t segment, uint64_t offset, Error problem) {
    walk_.damaged = segment;
    walk_.damaged_offset = offset;
    walk_.report.problem = std::move(problem);
  }

  Status pass_segment(size_t i) {
    auto opened = open_own_segment(directory_, walk_.sequences[i], identity_);
    if (!opened) {
      if (opened.error().code() != Code::kCorrupt) return std::unexpected(opened.error());
      found(i, 0, opened.error());
      return {};
    }
    SegmentReader& reader = **opened;
    if (i == 0) {
      walk_.report.first = reader.header().first_index;
      walk_.report.last = walk_.report.first - 1;
      walk_.report.vector = reader.header().covered;
      walk_.report.begins_anew = reader.header().restart;
    } else if (auto wrong = check_start(reader, walk_.sequences[i - 1] + 1)) {
      found(i, 0, *wrong);
      return {};
    }
    TRY(pass_frames(i, reader));
    chain_ = reader.state().summary.chain;
    done_bytes_ += reader.limit();
    walk_.report.segments += 1;
    walk_.report.bytes += walk_.report.problem ? walk_.damaged_offset : reader.limit();
    return {};
  }

  std::optional<Error> check_start(const SegmentReader& reader, uint64_t sequence) {
    Status follows = check_succession(reader, sequence, walk_.report.last + 1, chain_);
    if (!follows) return follows.error();
    if (reader.header().covered == walk_.report.vector) return std::nullopt;
    return Error(
        Code::kCorrupt,
        fmt::format("{}: expected the vector of the batches before it, found another", reader.path()));
  }

  Status pass_frames(size_t i, SegmentReader& reader) {
    bool sealed = false;
    size_t points = 0;  // of the index, passed
    while (!walk_.report.problem) {
      uint64_t offset = reader.state().offset;
      if (points < reader.points().size() && reader.points()[points].offset <= offset) {
        if (auto wrong = check_point(reader, reader.points()[points++])) {
          found(i, offset, *wrong);
          return {};
        }
      }
      auto frame = reader.next();
      if (!frame && frame.error().code() != Code::kCorrupt) return std::unexpected(frame.error());
      if (!frame) {
        bool torn = i + 1 == walk_.sequences.size() && !sealed;
        auto worse = damage_below_durable(reader, frame.error(), durable_hint_);
        found(i, offset, worse ? *worse : frame.error());
        walk_.report.torn_tail = torn && !worse;
      } else if (!*frame) {
        if (reader.compressed() && (!sealed || points != reader.points().size())) {
          found(
              i, offset,
              Error(Code::kCorrupt,
                    fmt::format("{}: expected a seal at its end and an index of what is in it, found another",
                                reader.path())));
        } else if (!sealed && i + 1 < walk_.sequences.size()) {
          found(i, offset,
                Error(Code::kCorrupt,
                      fmt::format("{}: expected a seal at its end, as {} follows it, found none",
                                  reader.path(), segment_name(walk_.sequences[i + 1]))));
        }
        return {};
      } else if (sealed) {
        found(i, offset,
              Error(Code::kCorrupt,
                    fmt::format("{}: expected its end after the seal, found a frame at offset {}",
                                reader.path(), offset)));
      } else {
        sealed = (*frame)->header.kind == FrameKind::kSeal;
        walk_.report.clean_close = (*frame)->header.kind == FrameKind::kClose;
        if ((*frame)->is_batch()) TRY(pass_batch(i, reader, **frame));
      }
      if (progress_) progress_(done_bytes_ + reader.state().offset, all_bytes_);
    }
    return {};
  }

  // Does an entry of a compressed segment's index say where this frame is?
  static std::optional<Error> check_point(const SegmentReader& reader, const ReadPoint& point) {
    const SegmentState& state = reader.state();
    if (point.offset == state.offset && point.index == state.next_index &&
        point.bytes_before == state.summary.batch_bytes)
      return std::nullopt;
    return Error(Code::kCorrupt,
                 fmt::format("{}: expected an index that names log index {} at offset {}, found {} at {}",
                             reader.path(), state.next_index, state.offset, point.index, point.offset));
  }

  Status pass_batch(size_t i, SegmentReader& reader, const Frame& frame) {
    auto batch = reader.batch(frame);
    if (!batch && batch.error().code() != Code::kCorrupt) return std::unexpected(batch.error());
    Vector vector = walk_.report.vector;
    Status dense = follow(vector, frame, reader.path());
    if (!batch || !dense) {
      found(i, frame.offset, !batch ? batch.error() : dense.error());
      return {};
    }
    walk_.report.vector = std::move(vector);
    walk_.report.last = frame.header.index;
    walk_.report.batches += 1;
    return {};
  }

  Directory& directory_;
  const JournalIdentity& identity_;
  const LogIndex durable_hint_;
  const JournalProgress& progress_;
  Walk walk_;
  uint64_t chain_ = 0;
  uint64_t done_bytes_ = 0, all_bytes_ = 0;
};

Result<std::string> unused_name(Directory& directory, uint64_t sequence) {
  for (int n = 1;; ++n) {
    std::string name = fmt::format("{}.cut-{}", segment_name(sequence), n);
    if (!TRY(directory.exists(name))) return name;
  }
}

Status keep_whole(Directory& directory, uint64_t sequence, JournalRepair& repair) {
  std::string kept = TRY(unused_name(directory, sequence));
  auto file = TRY(directory.open(segment_name(sequence), OpenMode::kRead));
  repair.cut_bytes += TRY(file->size());
  TRY(directory.rename(segment_name(sequence), kept));
  TRY(directory.sync());
  repair.kept.push_back(std::move(kept));
  return {};
}

// Copies [begin, end) of what `read` reads, or up to its end, and syncs it. Where it ended.
template <class Read>
Result<uint64_t> copy_bytes(const Read& read, uint64_t begin, uint64_t end, File& to) {
  Bytes piece;
  uint64_t at = begin;
  do {
    piece.resize(std::min<uint64_t>(1 << 20, end - at));
    piece.resize(TRY(read(piece, at)));
    TRY(to.pwrite(piece, at - begin));
    at += piece.size();
  } while (!piece.empty());
  TRY(to.sync_data());
  return at;
}

Status keep_rest(Directory& directory, uint64_t sequence, uint64_t offset, JournalRepair& repair) {
  auto file = TRY(directory.open(segment_name(sequence), OpenMode::kReadWrite));
  if (TRY(file->size()) == offset) return {};  // only what follows it is wrong
  std::string kept = TRY(unused_name(directory, sequence));
  auto copy = TRY(directory.open(kept, OpenMode::kCreate));
  auto read = [&](ByteSpan into, uint64_t at) { return file->pread(into, at); };
  uint64_t end = TRY(copy_bytes(read, offset, UINT64_MAX, *copy));
  TRY(directory.sync());
  TRY(file->resize(offset));
  TRY(file->sync_data());
  repair.cut_bytes += end - offset;
  repair.kept.push_back(std::move(kept));
  return {};
}

// Of a compressed segment all is kept, and what is good becomes a plain one in its place.
Status keep_compressed(Directory& directory, SegmentReader& reader, uint64_t offset, JournalRepair& repair) {
  uint64_t sequence = reader.header().sequence;
  std::string kept = TRY(unused_name(directory, sequence));
  auto file = TRY(directory.open(segment_name(sequence), OpenMode::kRead));
  auto copy = TRY(directory.open(kept, OpenMode::kCreate));
  TRY(copy_bytes([&](ByteSpan into, uint64_t at) { return file->pread(into, at); }, 0, UINT64_MAX, *copy));
  TRY(directory.sync());
  std::string plain_name = segment_name(sequence) + ".new";
  auto plain = TRY(directory.open(plain_name, OpenMode::kCreateOrOpen));
  TRY(plain->resize(0));
  TRY(copy_bytes([&](ByteSpan into, uint64_t at) { return reader.read_bytes(into, at); }, 0, offset, *plain));
  TRY(directory.rename(plain_name, segment_name(sequence)));
  TRY(directory.sync());
  repair.cut_bytes += reader.limit() - offset;
  repair.kept.push_back(std::move(kept));
  return {};
}

}  // namespace

Result<JournalReport> verify_journal(Directory& directory, const JournalIdentity& identity,
                                     LogIndex durable_hint, const JournalProgress& progress) {
  Walk walk = TRY(Walker(directory, identity, durable_hint, progress).run());
  return std::move(walk.report);
}

Result<JournalRepair> repair_journal(Directory& directory, const JournalIdentity& identity,
                                     const JournalProgress& progress) {
  Walk walk = TRY(Walker(directory, identity, 0, progress).run());
  JournalRepair repair{.first = walk.report.first, .last = walk.report.last, .problem = walk.report.problem};
  if (!walk.report.problem) return repair;
  // Newest first: what is left is an unbroken run of segments at any time.
  size_t whole_from = walk.damaged_offset == 0 ? walk.damaged : walk.damaged + 1;
  for (size_t i = walk.sequences.size(); i-- > whole_from;)
    TRY(keep_whole(directory, walk.sequences[i], repair));
  if (walk.damaged_offset != 0) {
    auto damaged = TRY(open_own_segment(directory, walk.sequences[walk.damaged], identity));
    if (damaged->compressed()) {
      TRY(keep_compressed(directory, *damaged, walk.damaged_offset, repair));
    } else {
      TRY(keep_rest(directory, walk.sequences[walk.damaged], walk.damaged_offset, repair));
    }
  }
  return repair;
}

Status set_aside_segments(Directory& directory, JournalRepair& repair) {
  std::vector<uint64_t> sequences = TRY(list_segments(directory));
  for (size_t i = sequences.size(); i-- > 0;) TRY(keep_whole(directory, sequences[i], repair));
  return {};
}

}  // namespace reprise::journal
