#include "journal/correction.h"

#include <algorithm>

#include "base/hash.h"
#include "journal/compressed_segment.h"
#include "journal/recovery.h"
#include "journal/survey.h"

namespace reprise::journal {
namespace {

constexpr size_t kHeaderTried = 16 << 10;  // a segment header with a vector of 600 origins

Result<Bytes> read_some(const File& file, uint64_t offset, size_t bytes) {
  Bytes read(bytes);
  read.resize(TRY(file.pread(read, offset)));
  return read;
}

// Has it a header with a matching checksum? Asked a million times, of bytes of which it does not matter what
// is wrong with them.
bool has_header(ByteView all) {
  if (all.size() < kSegmentFixedBytes + 8) return false;
  const auto length = load_value<uint32_t>(all.data() + 12);
  return length >= kSegmentFixedBytes + 8 && length <= all.size() &&
         segment_header_checksum(all.first(length)) == hash64(all.first(length - 8));
}

// Of a segment whose header, or whose index, cannot be read.
Result<std::optional<Correction>> correct_start(const File& file, const JournalIdentity& identity,
                                                uint64_t sequence, const CorrectionEffort& effort) {
  Bytes bytes = TRY(read_some(file, 0, kHeaderTried));
  auto header_in = [&](ByteView all) -> std::optional<SegmentHeader> {
    if (!has_header(all)) return std::nullopt;
    auto header = decode_segment_header(all.first(load_value<uint32_t>(all.data() + 12)));
    return header ? std::optional(*header) : std::nullopt;
  };
  if (auto header = header_in(bytes)) return CompressedSegment::correct_index(file, *header, effort);
  auto own = [&](ByteView all) {
    auto header = header_in(all);
    return header && header->volume == identity.volume && header->branch == identity.branch &&
           header->sequence == sequence;
  };
  // Only what the length takes in is tried, unless it is the length that is wrong.
  if (auto length = segment_header_bytes(ByteView(bytes).first(std::min<size_t>(bytes.size(), 16)));
      length && *length < bytes.size()) {
    if (auto found =
            correct(Bytes(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(*length)), 0, effort, own))
      return found;
  }
  auto at = correct_byte(ByteSpan(bytes).first(std::min<size_t>(bytes.size(), 16)), effort,
                         [&](ByteView) { return own(bytes); });
  if (!at) return std::nullopt;
  return Correction{*at, {bytes[*at]}};
}

// The close or seal that was where `reader` stands: only these take up no log index.
Result<std::optional<Correction>> correct_summary(SegmentReader& reader, const SegmentHeader* next_segment) {
  if (!reader.chain()) return std::nullopt;
  const SegmentState before = reader.state();
  const uint64_t end = before.offset + kSummaryFrameBytes;
  auto summary = [&](FrameKind kind, LogIndex durable_through, uint64_t& chain) {
    Correction made{before.offset, Bytes(kSummaryFrameBytes)};
    before.summary.encode(made.bytes.data() + kFrameHeaderBytes);
    FrameHeader header{.kind = kind,
                       .message_bytes = FrameSummary::kBytes,
                       .index = before.next_index,
                       .durable_through = durable_through,
                       .checksum = hash64(ByteView(made.bytes).subspan(kFrameHeaderBytes))};
    header.self_checksum =
        encode_frame_header(header, placement_seed(reader.header().id, before.offset), made.bytes.data());
    chain = extend_chain(before.summary.chain, header);
    return made;
  };
  uint64_t chain = 0;
  if (end < reader.limit()) {
    reader.seek(end, before.next_index);
    auto behind = reader.next_header();
    if (behind && *behind) return summary(FrameKind::kClose, before.next_index - 1, chain);
    if (!behind && behind.error().code() != Code::kCorrupt) return std::unexpected(behind.error());
    reader.seek(before.offset, before.next_index);
  }
  // Also one that was cut short, or has moved.
  if (next_segment != nullptr && reader.limit() - before.offset < 2 * kSummaryFrameBytes) {
    // A seal may have been written before all that precedes it was known to be on the disk.
    for (LogIndex durable = before.next_index; durable-- >= reader.header().first_index;) {
      Correction made = summary(FrameKind::kSeal, durable, chain);
      if (chain == next_segment->previous) return made;
    }
  }
  return std::nullopt;
}

Result<std::optional<Correction>> correct_frame(SegmentReader& reader, const SegmentHeader* next_segment,
                                                const CorrectionEffort& effort) {
  const uint64_t offset = reader.state().offset;
  const LogIndex index = reader.state().next_index;
  const uint64_t seed = placement_seed(reader.header().id, offset);
  Bytes head(kFrameHeaderBytes);
  head.resize(TRY(reader.read_bytes(head, offset)));
  if (head.size() < kFrameHeaderBytes) return correct_summary(reader, next_segment);
  FrameHeader header;
  auto fits = [&](ByteView bytes) {
    return decode_frame_header(bytes, seed, header) == nullptr && header.index == index;
  };
  if (!fits(head)) {
    if (auto found = correct(head, offset, effort, fits)) return found;
    return correct_summary(reader, next_segment);
  }
  size_t bytes = header.frame_bytes() - kFrameHeaderBytes;
  if (bytes <= effort.every_bit && offset + header.frame_bytes() <= reader.limit()) {
    Bytes payload(bytes);
    payload.resize(TRY(reader.read_bytes(payload, offset + kFrameHeaderBytes)));
    if (auto found = correct_hashed(std::move(payload), offset + kFrameHeaderBytes, effort, header.checksum))
      return found;
  }
  return header.kind == FrameKind::kBatch ? std::nullopt : TRY(correct_summary(reader, next_segment));
}

// Each is 5 s at the most.
constexpr size_t kGivenUpMax = 16;

class Search {
 public:
  Search(uint64_t sequence, GivenUp& given_up) : here_(given_up[sequence]), all_(given_up) {}

  // What `look` finds of the damage at `offset`, unless that was given up.
  template <class Look>
  Result<std::optional<Correction>> at(uint64_t offset, const Look& look) {
    size_t tried = 0;
    for (const auto& [sequence, offsets] : all_) tried += offsets.size();
    if (here_.contains(offset) || tried >= kGivenUpMax) return std::nullopt;
    auto found = look();
    if (found && !*found) here_.insert(offset);
    return found;
  }

 private:
  std::set<uint64_t>& here_;
  const GivenUp& all_;
};

Result<std::optional<Correction>> correct_frames(SegmentReader& reader, const SegmentHeader* next,
                                                 const CorrectionEffort& effort, Search& search) {
  for (bool sealed = false; !sealed;) {
    auto frame = reader.next();
    if (!frame && frame.error().code() != Code::kCorrupt) return std::unexpected(frame.error());
    if (frame && *frame) {
      sealed = (*frame)->header.kind == FrameKind::kSeal;
      continue;
    }
    auto found = TRY(search.at(reader.state().offset, [&] { return correct_frame(reader, next, effort); }));
    if (found || frame || !TRY(skip_damage(reader))) return found;
  }
  return std::nullopt;
}

// A segment's file with another header, which is not on the disk.
class WithHeader final : public File {
 public:
  WithHeader(std::unique_ptr<File> file, Bytes header) : file_(std::move(file)), header_(std::move(header)) {}
  Result<size_t> pread(ByteSpan into, uint64_t offset) const override {
    size_t read = TRY(file_->pread(into, offset));
    for (size_t at = 0; at < read && offset + at < header_.size(); ++at) into[at] = header_[offset + at];
    return read;
  }
  Status pwrite(ByteView, uint64_t) override { return read_only(); }
  Result<uint64_t> size() const override { return file_->size(); }
  Result<uint64_t> next_data(uint64_t offset) const override { return file_->next_data(offset); }
  Status resize(uint64_t) override { return read_only(); }
  Status sync_data() override { return {}; }
  const std::string& path() const override { return file_->path(); }

 private:
  Status read_only() const { return fail(Code::kReadOnly, path() + " is only read"); }
  std::unique_ptr<File> file_;
  const Bytes header_;
};

// Does a close or seal behind this header count the chain from it on?
Result<bool> frames_rest_on(std::unique_ptr<File> file, const Bytes& header) {
  auto reader = SegmentReader::open(std::make_unique<WithHeader>(std::move(file), header));
  if (!reader && reader.error().code() != Code::kCorrupt) return std::unexpected(reader.error());
  while (reader) {
    auto frame = (*reader)->next();
    if (!frame && frame.error().code() != Code::kCorrupt) return std::unexpected(frame.error());
    if (!frame || !*frame) return false;
    if (!(*frame)->is_batch()) return true;
  }
  return false;
}

// What differs, so that no more is written, and said, than was wrong.
std::optional<Correction> only_what_differs(const Bytes& right, const Bytes& found) {
  auto begin = std::ranges::mismatch(right, found).in1;
  if (begin == right.end()) return std::nullopt;
  auto end = right.end();
  while (end[-1] == found[static_cast<size_t>(end - right.begin()) - 1]) --end;
  return Correction{static_cast<uint64_t>(begin - right.begin()), Bytes(begin, end)};
}

}  // namespace

std::optional<Correction> correct_hashed(Bytes bytes, uint64_t offset, const CorrectionEffort& effort,
                                         uint64_t checksum) {
  if (bytes.size() > effort.every_bit) return std::nullopt;
  auto at = correct_hashed_byte(bytes, checksum, bytes.size() <= effort.every_value, effort.progress);
  if (!at) return std::nullopt;
  return Correction{offset + *at, {bytes[*at]}};
}

Result<std::optional<Correction>> make_header_anew(Directory& directory, const JournalIdentity& identity,
                                                   const JournalReport& report) {
  const size_t at = report.damaged;
  if (at == 0 || at >= report.sequences.size() || report.damaged_offset != 0) return std::nullopt;
  const uint64_t sequence = report.sequences[at];
  if (report.sequences[at - 1] + 1 != sequence) return std::nullopt;
  auto file = directory.open(segment_name(sequence), OpenMode::kRead);
  if (!file && file.error().code() == Code::kCorrupt) return std::nullopt;  // no file, but a pipe or the like
  Bytes id = TRY(read_some(*TRY(std::move(file)), kSegmentIdOffset, 16));
  if (id.size() < 16) return std::nullopt;
  SegmentHeader header{.volume = identity.volume,
                       .id = {load_value<uint64_t>(id.data()), load_value<uint64_t>(id.data() + 8)},
                       .branch = identity.branch,
                       .sequence = sequence,
                       .first_index = report.last + 1,
                       .previous = report.chain,
                       .covered = report.vector};
  for (bool compressed : {false, true}) {
    header.features.incompat = compressed ? kCompressedFeature : 0;
    Bytes right = encode_segment_header(header);
    auto opened = TRY(directory.open(segment_name(sequence), OpenMode::kRead));
    Bytes found = TRY(read_some(*opened, 0, right.size()));
    if (found.size() < right.size()) return std::nullopt;
    const bool own = segment_header_checksum(right) == segment_header_checksum(found);
    if (own || (!compressed && TRY(frames_rest_on(std::move(opened), right))))
      return only_what_differs(right, found);
  }
  return std::nullopt;
}

Result<std::optional<Correction>> make_index_anew(Directory& directory, const JournalIdentity& identity,
                                                  const JournalReport& report, size_t segment) {
  const uint64_t sequence = report.sequences[segment];
  auto file = directory.open(segment_name(sequence), OpenMode::kRead);
  if (!file && file.error().code() == Code::kCorrupt) return std::nullopt;  // no file, but a pipe or the like
  if (!file) return std::unexpected(file.error());
  auto bytes = read_segment_header(**file);
  if (!bytes && bytes.error().code() != Code::kCorrupt) return std::unexpected(bytes.error());
  auto header = bytes ? decode_segment_header(*bytes) : std::unexpected(bytes.error());
  if (!header || header->features.incompat == 0) return std::nullopt;
  // Of one that can be opened it is only known where verify has read the frames.
  auto opened = open_own_segment(directory, sequence, identity);
  if (!opened && opened.error().code() != Code::kCorrupt) return std::unexpected(opened.error());
  const bool frames_are_sound =
      opened && segment == report.damaged && report.damaged_offset == (*opened)->limit();
  if (opened && !frames_are_sound) return std::nullopt;
  return CompressedSegment::make_index_anew(std::move(*file), *header);
}

Result<std::optional<Correction>> find_correction(Directory& directory, const JournalIdentity& identity,
                                                  uint64_t sequence, const SegmentHeader* next,
                                                  const CorrectionEffort& effort, GivenUp& given_up) {
  Search search(sequence, given_up);
  auto file = directory.open(segment_name(sequence), OpenMode::kRead);
  if (!file && file.error().code() == Code::kCorrupt) return std::nullopt;  // no file, but a pipe or the like
  if (!file) return std::unexpected(file.error());
  auto reader = open_own_segment(directory, sequence, identity);
  if (!reader && reader.error().code() != Code::kCorrupt) return std::unexpected(reader.error());
  if (!reader) {
    auto found = TRY(search.at(0, [&] { return correct_start(**file, identity, sequence, effort); }));
    if (found) return found;
    reader = open_damaged_segment(directory, sequence, identity);
    if (!reader || *reader == nullptr || !TRY(skip_damage(**reader))) return std::nullopt;
  }
  if (!(*reader)->compressed()) return correct_frames(**reader, next, effort, search);
  auto compressed = TRY(CompressedSegment::open(std::move(*file), (*reader)->header()));
  for (uint64_t offset : TRY(compressed->damaged_blocks())) {
    auto found = TRY(search.at(offset, [&] { return compressed->correct_block(offset, effort); }));
    if (found) return found;
  }
  return std::nullopt;
}

}  // namespace reprise::journal
