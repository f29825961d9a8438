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
      auto file = TRY(directory_.open(segment_name(sequence), OpenMode::kRead));
      all_bytes_ += TRY(file->size());
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
    while (!walk_.report.problem) {
      uint64_t offset = reader.state().offset;
      auto frame = reader.next();
      if (!frame && frame.error().code() != Code::kCorrupt) return std::unexpected(frame.error());
      if (!frame) {
        bool torn = i + 1 == walk_.sequences.size() && !sealed;
        auto worse = damage_below_durable(reader, frame.error(), durable_hint_);
        found(i, offset, worse ? *worse : frame.error());
        walk_.report.torn_tail = torn && !worse;
      } else if (!*frame) {
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

Status keep_rest(Directory& directory, uint64_t sequence, uint64_t offset, JournalRepair& repair) {
  std::string kept = TRY(unused_name(directory, sequence));
  auto file = TRY(directory.open(segment_name(sequence), OpenMode::kReadWrite));
  auto copy = TRY(directory.open(kept, OpenMode::kCreate));
  Bytes piece;
  uint64_t at = offset;
  do {
    piece.resize(1 << 20);
    piece.resize(TRY(file->pread(piece, at)));
    TRY(copy->pwrite(piece, at - offset));
    at += piece.size();
  } while (!piece.empty());
  TRY(copy->sync_data());
  TRY(directory.sync());
  TRY(file->resize(offset));
  TRY(file->sync_data());
  repair.cut_bytes += at - offset;
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
  if (walk.damaged_offset != 0)
    TRY(keep_rest(directory, walk.sequences[walk.damaged], walk.damaged_offset, repair));
  return repair;
}

}  // namespace reprise::journal
