#include "journal/verify.h"

#include <fmt/format.h>

#include <algorithm>

#include "journal/recovery.h"

namespace reprise::journal {
namespace {

class Walker {
 public:
  Walker(Directory& directory, const JournalIdentity& identity, LogIndex durable_hint,
         const JournalProgress& progress)
      : directory_(directory), identity_(identity), durable_hint_(durable_hint), progress_(progress) {}

  Result<JournalReport> run() {
    TRY(list());
    for (size_t i = 0; i < report_.sequences.size() && !report_.problem; ++i) TRY(pass_segment(i));
    LogIndex end = report_.last + 1;
    if (!report_.problem && durable_hint_ >= end) {
      report_.problem =
          Error(Code::kCorrupt,
                fmt::format("{}: expected log index {}, known to be on the disk, found the end at {}",
                            last_file(), durable_hint_, end - 1));
      report_.damaged = report_.sequences.size();
    }
    return std::move(report_);
  }

 private:
  // The files of the log, from the last restart on.
  Status list() {
    report_.sequences = TRY(list_segments(directory_));
    for (size_t i = report_.sequences.size(); i-- > 0;) {
      auto reader = open_own_segment(directory_, report_.sequences[i], identity_);
      if (!reader || !(*reader)->header().restart) continue;
      report_.sequences.erase(report_.sequences.begin(),
                              report_.sequences.begin() + static_cast<ptrdiff_t>(i));
      break;
    }
    for (uint64_t sequence : report_.sequences) {
      // One that cannot be opened is reported when it is its turn.
      if (auto reader = open_own_segment(directory_, sequence, identity_)) all_bytes_ += (*reader)->limit();
    }
    return {};
  }

  std::string last_file() const {
    std::string path = directory_.path();
    return report_.sequences.empty() ? path : path + "/" + segment_name(report_.sequences.back());
  }

  void found(size_t segment, uint64_t offset, Error problem) {
    report_.damaged = segment;
    report_.damaged_offset = offset;
    report_.chain = chain_;
    report_.problem = std::move(problem);
  }

  Status pass_segment(size_t i) {
    auto opened = open_own_segment(directory_, report_.sequences[i], identity_);
    if (!opened) {
      if (opened.error().code() != Code::kCorrupt) return std::unexpected(opened.error());
      found(i, 0, opened.error());
      return {};
    }
    SegmentReader& reader = **opened;
    if (i == 0) {
      report_.first = reader.header().first_index;
      report_.last = report_.first - 1;
      report_.vector = reader.header().covered;
      report_.begins_anew = reader.header().restart;
    } else if (auto wrong = check_start(reader, report_.sequences[i - 1] + 1)) {
      found(i, 0, *wrong);
      return {};
    }
    TRY(pass_frames(i, reader));
    chain_ = reader.state().summary.chain;
    done_bytes_ += reader.limit();
    report_.segments += 1;
    report_.bytes += report_.problem ? report_.damaged_offset : reader.limit();
    return {};
  }

  std::optional<Error> check_start(const SegmentReader& reader, uint64_t sequence) {
    Status follows = check_succession(reader, sequence, report_.last + 1, chain_);
    if (!follows) return follows.error();
    if (reader.header().covered == report_.vector) return std::nullopt;
    return Error(
        Code::kCorrupt,
        fmt::format("{}: expected the vector of the batches before it, found another", reader.path()));
  }

  Status pass_frames(size_t i, SegmentReader& reader) {
    bool sealed = false;
    size_t points = 0;  // of the index, passed
    std::optional<Error> wrong_index;
    while (!report_.problem) {
      uint64_t offset = reader.state().offset;
      if (points < reader.points().size() && reader.points()[points].offset <= offset) {
        auto wrong = check_point(reader, reader.points()[points++]);
        if (!wrong_index) wrong_index = std::move(wrong);
      }
      auto frame = reader.next();
      if (!frame && frame.error().code() != Code::kCorrupt) return std::unexpected(frame.error());
      if (!frame) {
        bool torn = i + 1 == report_.sequences.size() && !sealed;
        auto worse = damage_below_durable(reader, frame.error(), durable_hint_);
        found(i, offset, worse ? *worse : frame.error());
        report_.torn_tail = torn && !worse;
      } else if (!*frame) {
        if (reader.compressed() && (!sealed || points != reader.points().size())) {
          found(
              i, offset,
              Error(Code::kCorrupt,
                    fmt::format("{}: expected a seal at its end and an index of what is in it, found another",
                                reader.path())));
        } else if (!sealed && i + 1 < report_.sequences.size()) {
          found(i, offset,
                Error(Code::kCorrupt,
                      fmt::format("{}: expected a seal at its end, as {} follows it, found none",
                                  reader.path(), segment_name(report_.sequences[i + 1]))));
        } else if (wrong_index) {
          found(i, offset, *wrong_index);  // only now: what is wrong in the frames takes away more
        }
        return {};
      } else if (sealed) {
        found(i, offset,
              Error(Code::kCorrupt,
                    fmt::format("{}: expected its end after the seal, found a frame at offset {}",
                                reader.path(), offset)));
      } else {
        sealed = (*frame)->header.kind == FrameKind::kSeal;
        report_.clean_close = (*frame)->header.kind == FrameKind::kClose;
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
                 fmt::format("{}: expected an index that names log index {} at offset {} behind {} encoded "
                             "bytes, found {} at {} behind {}",
                             reader.path(), state.next_index, state.offset, state.summary.batch_bytes,
                             point.index, point.offset, point.bytes_before));
  }

  Status pass_batch(size_t i, SegmentReader& reader, const Frame& frame) {
    auto batch = reader.batch(frame);
    if (!batch && batch.error().code() != Code::kCorrupt) return std::unexpected(batch.error());
    Vector vector = report_.vector;
    Status dense = follow(vector, frame, reader.path());
    if (!batch || !dense) {
      found(i, frame.offset, !batch ? batch.error() : dense.error());
      return {};
    }
    report_.vector = std::move(vector);
    report_.last = frame.header.index;
    report_.batches += 1;
    return {};
  }

  Directory& directory_;
  const JournalIdentity& identity_;
  const LogIndex durable_hint_;
  const JournalProgress& progress_;
  JournalReport report_;
  uint64_t chain_ = 0;
  uint64_t done_bytes_ = 0, all_bytes_ = 0;
};

}  // namespace

Result<JournalReport> verify_journal(Directory& directory, const JournalIdentity& identity,
                                     LogIndex durable_hint, const JournalProgress& progress) {
  return Walker(directory, identity, durable_hint, progress).run();
}

}  // namespace reprise::journal
