#include <fmt/format.h>

#include "journal/survey.h"
#include "journal/verify.h"

namespace reprise::journal {
namespace {

class FurtherDamage {
 public:
  FurtherDamage(Directory& directory, const JournalIdentity& identity, const JournalReport& report,
                size_t most)
      : directory_(directory), identity_(identity), report_(report), most_(most) {}

  Result<std::vector<Error>> run() {
    for (segment_ = report_.damaged; segment_ < report_.sequences.size() && !full(); ++segment_) {
      TRY(pass_segment(report_.sequences[segment_]));
    }
    return std::move(found_);
  }

 private:
  bool full() const { return found_.size() >= most_; }

  // At an offset in the segment; 0: its header. What verify has found is not said again.
  void found(uint64_t offset, Error problem) {
    if (segment_ == report_.damaged && offset == report_.damaged_offset) return;
    if (!full()) found_.push_back(std::move(problem));
  }

  Status pass_segment(uint64_t sequence) {
    auto reader = open_own_segment(directory_, sequence, identity_);
    if (reader) {
      check_start(**reader);
    } else {
      if (reader.error().code() != Code::kCorrupt) return std::unexpected(reader.error());
      found(0, reader.error());
      reader = TRY(open_damaged_segment(directory_, sequence, identity_));
    }
    end_.reset();
    if (*reader == nullptr) return {};
    if ((*reader)->header().sequence == 0 && !TRY(skip_damage(**reader))) return {};
    return pass_frames(**reader);
  }

  // Only where the segment before could be read to its end is it known what follows.
  void check_start(const SegmentReader& reader) {
    if (!end_) return;
    Status follows = check_succession(reader, end_->sequence + 1, end_->next_index, end_->chain);
    if (!follows) found(0, follows.error());
  }

  Status pass_frames(SegmentReader& reader) {
    bool sealed = false;
    while (!full()) {
      const uint64_t offset = reader.state().offset;
      auto frame = reader.next();
      if (!frame && frame.error().code() != Code::kCorrupt) return std::unexpected(frame.error());
      if (!frame) {
        found(offset, frame.error());
        if (sealed || !TRY(skip_damage(reader))) return {};
      } else if (!*frame) {
        pass_end(reader, sealed);
        return {};
      } else {
        sealed = (*frame)->header.kind == FrameKind::kSeal;
        if (!(*frame)->is_batch()) continue;
        auto batch = reader.batch(**frame);
        if (!batch && batch.error().code() != Code::kCorrupt) return std::unexpected(batch.error());
        if (!batch) found(offset, batch.error());
      }
    }
    return {};
  }

  void pass_end(const SegmentReader& reader, bool sealed) {
    if (sealed) {
      end_ = End{report_.sequences[segment_], reader.state().next_index, reader.chain()};
    } else if (segment_ + 1 < report_.sequences.size()) {
      found(reader.state().offset,
            Error(Code::kCorrupt, fmt::format("{}: expected a seal at its end, as {} follows it, found none",
                                              reader.path(), segment_name(report_.sequences[segment_ + 1]))));
    }
  }

  Directory& directory_;
  const JournalIdentity& identity_;
  const JournalReport& report_;
  const size_t most_;
  size_t segment_ = 0;  // index into the report's
  struct End {
    uint64_t sequence = 0;
    LogIndex next_index = 0;
    std::optional<uint64_t> chain;
  };
  std::optional<End> end_;  // of the segment before
  std::vector<Error> found_;
};

}  // namespace

Result<std::vector<Error>> further_damage(Directory& directory, const JournalIdentity& identity,
                                          const JournalReport& report, size_t most) {
  return FurtherDamage(directory, identity, report, most).run();
}

}  // namespace reprise::journal
