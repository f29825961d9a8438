#include "journal/survey.h"

#include <algorithm>

#include "journal/compressed_segment.h"

namespace reprise::journal {
namespace {

LogIndex highest_index(const FrameHeader& header) {
  return header.kind == FrameKind::kBatch ? header.index : header.durable_through;
}

class Survey {
 public:
  Survey(Directory& directory, const JournalIdentity& identity, LogIndex wanted)
      : directory_(directory), identity_(identity), wanted_(wanted) {}

  Result<SurveyReport> run(const std::vector<uint64_t>& sequences) {
    for (size_t i = 0; i < sequences.size(); ++i) {
      auto reader = TRY(open_damaged_segment(directory_, sequences[i], identity_));
      segment_ = i;
      bool any = reader != nullptr;
      if (any && reader->header().sequence != 0) {
        begin_segment(*reader);
      } else {
        end_run();
        any = any && TRY(go_on_behind_damage(*reader));
      }
      if (!any) continue;
      TRY(pass_frames(*reader));
      sequence_ = sequences[i];
      chain_ = reader->chain();
    }
    end_run();
    return report_;
  }

 private:
  void begin_segment(const SegmentReader& reader) {
    const SegmentHeader& header = reader.header();
    bool follows = run_ && sealed_ && check_succession(reader, sequence_ + 1, run_->end, chain_);
    if (!follows) begin_run(header.first_index);
    if (!run_->whole) run_->whole = {segment_, header.first_index};
    sealed_ = false;
  }

  Status pass_frames(SegmentReader& reader) {
    while (true) {
      auto frame = reader.next();
      if (!frame && frame.error().code() != Code::kCorrupt) return std::unexpected(frame.error());
      // What lies behind the end of a segment is not of the log, which goes on in the next one.
      if (sealed_ && !(frame && !*frame)) return {};
      if (!frame) {
        end_run();
        if (!TRY(go_on_behind_damage(reader))) return {};
        continue;
      }
      if (!*frame) return {};
      report_.seen = std::max(report_.seen, highest_index((*frame)->header));
      sealed_ = (*frame)->header.kind == FrameKind::kSeal;
      if (!(*frame)->is_batch()) continue;
      auto batch = reader.batch(**frame);
      if (!batch && batch.error().code() != Code::kCorrupt) return std::unexpected(batch.error());
      if (batch) {
        run_->end += 1;
      } else {
        begin_run((*frame)->header.index + 1);
      }
    }
  }

  Result<bool> go_on_behind_damage(SegmentReader& reader) {
    sealed_ = false;
    auto seen = TRY(skip_damage(reader));
    if (!seen) return false;
    report_.seen = std::max(report_.seen, *seen);
    begin_run(reader.state().next_index);
    return true;
  }

  void begin_run(LogIndex first) {
    end_run();
    run_ = SoundRun{.first = first, .end = first, .segment = segment_, .whole = std::nullopt};
  }
  void end_run() {
    if (!run_) return;
    bool better = !report_.run || run_->end > report_.run->end;
    if (run_->end > run_->first && run_->first <= wanted_ && wanted_ <= run_->end && better)
      report_.run = run_;
    run_.reset();
  }

  Directory& directory_;
  const JournalIdentity& identity_;
  const LogIndex wanted_;
  SurveyReport report_;
  size_t segment_ = 0;
  std::optional<SoundRun> run_;
  // Of the segment before.
  bool sealed_ = false;
  uint64_t sequence_ = 0;
  std::optional<uint64_t> chain_;
};

}  // namespace

Result<std::unique_ptr<SegmentReader>> open_damaged_segment(Directory& directory, uint64_t sequence,
                                                            const JournalIdentity& identity) {
  auto reader = open_own_segment(directory, sequence, identity);
  if (reader || reader.error().code() != Code::kCorrupt) return reader;
  auto file = directory.open(segment_name(sequence), OpenMode::kRead);
  if (!file && file.error().code() == Code::kCorrupt) return nullptr;  // no file, but a pipe or the like
  if (!file) return std::unexpected(file.error());
  return SegmentReader::open_without_header(std::move(*file));
}

Result<std::optional<uint64_t>> find_end_of_segment(Directory& directory, const JournalIdentity& identity,
                                                    const JournalReport& report) {
  if (report.damaged >= report.sequences.size()) return std::nullopt;
  uint64_t sequence = report.sequences[report.damaged];
  auto file = directory.open(segment_name(sequence), OpenMode::kRead);
  if (!file && file.error().code() == Code::kCorrupt) return std::nullopt;  // no file, but a pipe or the like
  if (!file) return std::unexpected(file.error());
  std::optional<uint64_t> end;
  if (report.damaged_offset == 0) {
    auto bytes = read_segment_header(**file);
    if (!bytes && bytes.error().code() != Code::kCorrupt) return std::unexpected(bytes.error());
    if (!bytes) return std::nullopt;
    auto header = decode_segment_header(*bytes);
    if (!header || header->features.incompat == 0) return std::nullopt;
    end = TRY(CompressedSegment::find_end(**file, *header));
  } else {
    auto reader = TRY(open_own_segment(directory, sequence, identity));
    bool sealed = false;
    while (!reader->compressed() && reader->state().offset < report.damaged_offset) {
      auto frame = reader->next();
      if (!frame && frame.error().code() != Code::kCorrupt) return std::unexpected(frame.error());
      if (!frame || !*frame) return std::nullopt;
      sealed = (*frame)->header.kind == FrameKind::kSeal;
    }
    if (sealed) end = report.damaged_offset;
  }
  return end && *end < TRY((*file)->size()) ? end : std::nullopt;
}

Result<std::optional<LogIndex>> skip_damage(SegmentReader& reader) {
  uint64_t damaged = reader.state().offset;
  auto header = reader.next_header();
  if (!header && header.error().code() != Code::kCorrupt) return std::unexpected(header.error());
  if (header && *header) return highest_index((*header)->header);  // only what follows it is wrong
  if (reader.compressed()) {
    auto next = std::ranges::upper_bound(reader.points(), damaged, {}, &ReadPoint::offset);
    if (next == reader.points().end()) return std::nullopt;
    reader.seek(next->offset, next->index);
    return next->index - 1;
  }
  auto frame = TRY(reader.find_frame_after(damaged));
  if (!frame) return std::nullopt;
  reader.seek(frame->offset, frame->header.index);
  return highest_index(frame->header);
}

Result<SurveyReport> survey_segments(Directory& directory, const JournalIdentity& identity,
                                     const std::vector<uint64_t>& sequences, LogIndex wanted) {
  return Survey(directory, identity, wanted).run(sequences);
}

}  // namespace reprise::journal
