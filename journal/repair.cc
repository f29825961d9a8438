#include "journal/repair.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "journal/correction.h"
#include "journal/recovery.h"
#include "journal/survey.h"

namespace reprise::journal {
namespace {

Result<std::string> unused_name(Directory& directory, uint64_t sequence) {
  for (int n = 1;; ++n) {
    std::string name = fmt::format("{}.cut-{}", segment_name(sequence), n);
    if (!TRY(directory.exists(name))) return name;
  }
}

// The first `end` bytes of a segment, as they were before it was compressed.
Status write_plain(const SegmentReader& segment, uint64_t end, File& to) {
  Bytes piece;
  for (uint64_t at = 0; at < end; at += piece.size()) {
    piece.resize(std::min<uint64_t>(1 << 20, end - at));
    if (TRY(segment.read_bytes(piece, at)) != piece.size())
      return fail(Code::kCorrupt, fmt::format("{}: expected {} bytes, found fewer", segment.path(), end));
    TRY(to.pwrite(piece, at));
  }
  return to.sync_data();
}

class Repair {
 public:
  Repair(Directory& directory, const JournalIdentity& identity, LogIndex durable_hint,
         std::span<const RepairBase> bases, Random& random, const JournalProgress& progress,
         CorrectionEffort effort)
      : directory_(directory),
        identity_(identity),
        durable_hint_(durable_hint),
        bases_(bases),
        random_(random),
        progress_(progress),
        effort_(std::move(effort)) {}

  // Each round mends the first problem; taking the sound batches behind it may bring another to light.
  Status run() {
    constexpr size_t kRoundsMax = 8;
    for (size_t round = 0, walks = 0; round < kRoundsMax; ++walks) {
      JournalReport report = TRY(verify_journal(directory_, identity_, 0, progress_));
      if (walks == 0) done_.began = report.first;
      done_.first = report.first;
      done_.last = report.last;
      if (!report.problem) return set_aside_what_does_not_fit(report);
      done_.problems.push_back(*report.problem);
      if (TRY(cut_what_was_appended(report)) || TRY(put_right(report)) || TRY(make_indexes_anew(report)))
        continue;
      TRY(mend(report));
      ++round;
    }
    return std::unexpected(done_.problems.back().with_context("still damaged after it was repaired"));
  }

  JournalRepair& done() { return done_; }

 private:
  Result<bool> cut_what_was_appended(const JournalReport& report) {
    auto end = TRY(find_end_of_segment(directory_, identity_, report));
    if (end) TRY(keep_rest(report.sequences[report.damaged], *end));
    return end.has_value();
  }

  // Damage so small that what was there before is known, in all segments from the first damage on: no batch
  // is lost. The bytes that were wrong are named, not kept. Last ones first: a seal is known by what follows.
  Result<bool> put_right(const JournalReport& report) {
    constexpr size_t kCorrectedMax = 1000;
    const size_t before = done_.corrected.size();
    for (size_t i = report.sequences.size(); i-- > report.damaged;) {
      std::optional<SegmentHeader> next;
      if (i + 1 < report.sequences.size()) {
        auto opened = open_own_segment(directory_, report.sequences[i + 1], identity_);
        if (opened) next = (*opened)->header();
      }
      while (auto correction = TRY(find_correction(directory_, identity_, report.sequences[i],
                                                   next ? &*next : nullptr, effort_, given_up_))) {
        if (done_.corrected.size() == kCorrectedMax)
          return fail(Code::kCorrupt,
                      fmt::format("{}: put right in {} places, and there are more: run it again",
                                  directory_.path(), kCorrectedMax));
        TRY(write(report.sequences[i], *correction));
      }
    }
    if (done_.corrected.size() > before) return true;
    auto header = TRY(make_header_anew(directory_, identity_, report));
    if (header) TRY(write(report.sequences[report.damaged], *header));
    return header.has_value();
  }

  // What follows from the blocks, in all segments from the first damage on. Kept all the same, as it may be
  // much; without it the segment is one whose index is missing, of which the next repair makes the same.
  Result<bool> make_indexes_anew(const JournalReport& report) {
    bool any = false;
    for (size_t i = report.damaged; i < report.sequences.size(); ++i) {
      auto anew = TRY(make_index_anew(directory_, identity_, report, i));
      if (!anew) continue;
      TRY(keep_rest(report.sequences[i], anew->offset));
      auto file = TRY(directory_.open(segment_name(report.sequences[i]), OpenMode::kReadWrite));
      TRY(file->pwrite(anew->bytes, anew->offset));
      TRY(file->sync_data());
      done_.corrected.push_back(
          fmt::format("{}: at offset {}: the index, made anew from the blocks", file->path(), anew->offset));
      any = true;
    }
    return any;
  }

  Status write(uint64_t sequence, const Correction& correction) {
    auto file = TRY(directory_.open(segment_name(sequence), OpenMode::kReadWrite));
    Bytes wrong(correction.bytes.size());
    wrong.resize(TRY(file->pread(wrong, correction.offset)));
    TRY(file->pwrite(correction.bytes, correction.offset));
    TRY(file->sync_data());
    done_.corrected.push_back(fmt::format("{}: at offset {}: {} instead of {}", file->path(),
                                          correction.offset, to_hex(correction.bytes),
                                          wrong.empty() ? "the end" : to_hex(wrong)));
    return {};
  }

  Status mend(const JournalReport& report) {
    LogIndex reach = newest_base();
    SurveyReport found = TRY(survey_segments(directory_, identity_, report.sequences, reach + 1));
    if (!report.torn_tail) done_.seen = std::max(done_.seen, found.seen);
    if (reach <= report.last) return cut(report);
    if (!found.run) return set_aside(report.sequences, 0, report.sequences.size());
    const SoundRun& run = *found.run;
    if (run.whole && run.whole->index <= reach + 1) return set_aside(report.sequences, 0, run.whole->segment);
    return keep_from_a_base(report.sequences, run);
  }

  // Everything from the first problem on. Newest first: what is left is an unbroken run of segments at any
  // time.
  Status cut(const JournalReport& report) {
    size_t whole_from = report.damaged_offset == 0 ? report.damaged : report.damaged + 1;
    for (size_t i = report.sequences.size(); i-- > whole_from;) TRY(keep_whole(report.sequences[i]));
    if (report.damaged_offset == 0) return {};
    auto damaged = TRY(open_own_segment(directory_, report.sequences[report.damaged], identity_));
    return damaged->compressed() ? keep_compressed(*damaged, report.damaged_offset)
                                 : keep_rest(report.sequences[report.damaged], report.damaged_offset);
  }

  // A sound log that the newest snapshot cannot be gone on from, since it ends before that and had more, or
  // begins after it: the next opening begins it anew behind the snapshot, and has no use for what there is.
  Status set_aside_what_does_not_fit(const JournalReport& report) {
    bool lost = !done_.problems.empty() || durable_hint_ > report.last;
    bool ends_before = lost && newest_base() > report.last;
    bool begins_after = newest_base() != 0 && newest_base() + 1 < report.first;
    if (report.sequences.empty() || (!ends_before && !begins_after)) return {};
    TRY(set_aside(report.sequences, 0, report.sequences.size()));
    done_.seen = std::max(done_.seen, report.last);
    done_.first = 1;
    done_.last = 0;
    return {};
  }

  // Oldest first: while some are left, they begin with damage, or later than trimming went, and opening
  // refuses either.
  Status set_aside(const std::vector<uint64_t>& sequences, size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) TRY(keep_whole(sequences[i]));
    return {};
  }

  // No base reaches a segment that is sound from its beginning: the sound batches behind a base are written
  // once more, as the first segment of a log that begins there, in the place of the one they begin in. That
  // is in place before those behind it are set aside: until then they do not follow it, so that opening
  // refuses; and after those before it were, since opening removes what lies before such a segment.
  Status keep_from_a_base(const std::vector<uint64_t>& sequences, const SoundRun& run) {
    const RepairBase& base = oldest_base_from(run.first - 1);
    if (base.index + 1 >= run.end) return set_aside(sequences, 0, sequences.size());
    uint64_t sequence = sequences[run.segment];
    std::string unfinished = segment_name(sequence) + ".new";
    TRY(write_anew(sequences, run, base, unfinished));
    std::string kept = TRY(unused_name(directory_, sequence));
    TRY(copy_whole(sequence, kept));
    done_.kept.push_back(std::move(kept));
    TRY(set_aside(sequences, 0, run.segment));
    TRY(directory_.rename(unfinished, segment_name(sequence)));
    TRY(directory_.sync());
    for (size_t i = sequences.size(); i-- > run.segment + 1;) TRY(keep_whole(sequences[i]));
    return {};
  }

  Status write_anew(const std::vector<uint64_t>& sequences, const SoundRun& run, const RepairBase& base,
                    const std::string& name) {
    SegmentHeader header{.volume = identity_.volume,
                         .id = random_.next_id<SegmentId>(),
                         .branch = identity_.branch,
                         .sequence = sequences[run.segment],
                         .first_index = base.index + 1,
                         .restart = true,
                         .covered = base.vector};
    auto file = TRY(create_anew(name));
    auto writer = TRY(SegmentWriter::begin(std::move(file), header));
    Vector vector = base.vector;
    for (size_t i = run.segment; i < sequences.size() && writer->state().next_index < run.end; ++i)
      TRY(copy_batches(sequences[i], run.end, *writer, vector));
    TRY(writer->add_summary(FrameKind::kSeal, writer->state().next_index - 1));
    return writer->sync();
  }

  // Those of one segment that come next, before `end`. Fewer if the LSNs are not those that follow: the walk
  // after this finds out.
  Status copy_batches(uint64_t sequence, LogIndex end, SegmentWriter& writer, Vector& vector) {
    auto reader = TRY(open_damaged_segment(directory_, sequence, identity_));
    while (reader != nullptr && writer.state().next_index < end) {
      auto frame = reader->next();
      if (!frame && frame.error().code() != Code::kCorrupt) return std::unexpected(frame.error());
      if (!frame) {
        if (!TRY(skip_damage(*reader))) return {};
        continue;
      }
      if (!*frame) return {};
      if (!(*frame)->is_batch() || (*frame)->header.index != writer.state().next_index) continue;
      auto batch = reader->batch(**frame);
      if (!batch) return std::unexpected(batch.error());
      if (!follow(vector, **frame, reader->path())) return {};
      writer.add(*batch, writer.state().next_index - 1);
      if (writer.wants_flush()) TRY(writer.flush());
    }
    return {};
  }

  LogIndex newest_base() const {
    LogIndex newest = 0;
    for (const RepairBase& base : bases_) newest = std::max(newest, base.index);
    return newest;
  }
  const RepairBase& oldest_base_from(LogIndex index) const {
    const RepairBase* oldest = nullptr;
    for (const RepairBase& base : bases_) {
      if (base.index >= index && (oldest == nullptr || base.index < oldest->index)) oldest = &base;
    }
    CHECK(oldest != nullptr);  // the newest reaches it, or nobody asks
    return *oldest;
  }

  // In the place of what an interrupted repair has left, or whoever.
  Result<std::unique_ptr<File>> create_anew(const std::string& name) {
    if (TRY(directory_.exists(name))) TRY(directory_.unlink(name));
    return directory_.open(name, OpenMode::kCreate);
  }

  // --- setting aside

  Status keep_whole(uint64_t sequence) {
    std::string kept = TRY(unused_name(directory_, sequence));
    auto file = directory_.open(segment_name(sequence), OpenMode::kRead);
    if (!file && file.error().code() != Code::kCorrupt) return std::unexpected(file.error());
    uint64_t bytes = file ? TRY((*file)->size()) : 0;
    TRY(directory_.rename(segment_name(sequence), kept));
    done_.kept.push_back(std::move(kept));
    done_.cut_bytes += bytes;
    return directory_.sync();
  }

  // A copy that could not be finished is of no use.
  template <class Copy>
  Status copy_to(const std::string& name, const Copy& copy) {
    auto file = TRY(directory_.open(name, OpenMode::kCreate));
    Status copied = copy(*file);
    if (copied) copied = directory_.sync();
    if (!copied) static_cast<void>(directory_.unlink(name));
    return copied;
  }

  Status copy_whole(uint64_t sequence, const std::string& kept) {
    auto file = TRY(directory_.open(segment_name(sequence), OpenMode::kRead));
    return copy_to(kept, [&](File& copy) -> Status {
      TRY(copy_sparsely(*file, 0, copy));
      return {};
    });
  }

  Status keep_rest(uint64_t sequence, uint64_t offset) {
    auto file = TRY(directory_.open(segment_name(sequence), OpenMode::kReadWrite));
    if (TRY(file->size()) == offset) return {};  // only what follows it is wrong
    std::string kept = TRY(unused_name(directory_, sequence));
    uint64_t bytes = 0;
    TRY(copy_to(kept, [&](File& copy) -> Status {
      bytes = TRY(copy_sparsely(*file, offset, copy));
      return {};
    }));
    done_.kept.push_back(std::move(kept));
    TRY(file->resize(offset));
    TRY(file->sync_data());
    done_.cut_bytes += bytes;
    return {};
  }

  // Of a compressed segment all is kept, and what is good becomes a plain one in its place.
  Status keep_compressed(SegmentReader& reader, uint64_t offset) {
    uint64_t sequence = reader.header().sequence;
    std::string kept = TRY(unused_name(directory_, sequence));
    TRY(copy_whole(sequence, kept));
    done_.kept.push_back(std::move(kept));
    std::string plain_name = segment_name(sequence) + ".new";
    auto plain = TRY(create_anew(plain_name));
    TRY(write_plain(reader, offset, *plain));
    TRY(directory_.rename(plain_name, segment_name(sequence)));
    TRY(directory_.sync());
    done_.cut_bytes += reader.limit() - offset;
    return {};
  }

  Directory& directory_;
  const JournalIdentity& identity_;
  const LogIndex durable_hint_;
  const std::span<const RepairBase> bases_;
  Random& random_;
  const JournalProgress& progress_;
  const CorrectionEffort effort_;
  GivenUp given_up_;
  JournalRepair done_;
};

}  // namespace

Result<JournalRepair> repair_journal(Directory& directory, const JournalIdentity& identity,
                                     LogIndex durable_hint, std::span<const RepairBase> bases, Random& random,
                                     const JournalProgress& progress, CorrectionEffort effort) {
  Repair repair(directory, identity, durable_hint, bases, random, progress, std::move(effort));
  Status status = repair.run();
  if (status) return std::move(repair.done());
  const Error& error = status.error();
  if (repair.done().kept.empty()) return std::unexpected(error);
  std::string aside;
  for (const std::string& name : repair.done().kept) aside += (aside.empty() ? "" : ", ") + name;
  return std::unexpected(
      Error(error.code(),
            fmt::format("{}; set aside in {} until then: {}", error.message(), directory.path(), aside),
            error.sys_errno()));
}

}  // namespace reprise::journal
