#include "journal/correction.h"

#include <algorithm>

#include "base/hash.h"
#include "journal/compressed_segment.h"
#include "journal/recovery.h"

namespace reprise::journal {
namespace {

constexpr size_t kHeaderTried = 16 << 10;  // a segment header with a vector of 600 origins

Result<Bytes> read_some(const File& file, uint64_t offset, size_t bytes) {
  Bytes read(bytes);
  read.resize(TRY(file.pread(read, offset)));
  return read;
}

// Of a segment whose header, or whose index, cannot be read.
Result<std::optional<Correction>> correct_start(const File& file, const JournalIdentity& identity,
                                                uint64_t sequence, CorrectionLimits limits) {
  Bytes bytes = TRY(read_some(file, 0, kHeaderTried));
  auto header_in = [&](ByteView all) -> std::optional<SegmentHeader> {
    auto length = segment_header_bytes(all.first(std::min<size_t>(all.size(), 16)));
    if (!length || *length > all.size()) return std::nullopt;
    auto header = decode_segment_header(all.first(*length));
    return header ? std::optional(*header) : std::nullopt;
  };
  if (auto header = header_in(bytes)) return CompressedSegment::correct_index(file, *header, limits);
  auto own = [&](ByteView all) {
    auto header = header_in(all);
    return header && header->volume == identity.volume && header->branch == identity.branch &&
           header->sequence == sequence;
  };
  // Only what the length takes in is tried, unless it is the length that is wrong.
  if (auto length = segment_header_bytes(ByteView(bytes).first(std::min<size_t>(bytes.size(), 16)));
      length && *length < bytes.size()) {
    if (auto found =
            correct(Bytes(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(*length)), 0, limits, own))
      return found;
  }
  auto at = correct_byte(ByteSpan(bytes).first(std::min<size_t>(bytes.size(), 16)), limits,
                         [&](ByteView) { return own(bytes); });
  if (!at) return std::nullopt;
  return Correction{*at, {bytes[*at]}};
}

// The close or seal that was where `reader` stands: only these take up no log index.
Result<std::optional<Correction>> correct_summary(SegmentReader& reader, const SegmentHeader* next_segment) {
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
  } else if (end == reader.limit() && next_segment != nullptr) {
    // A seal may have been written before all that precedes it was known to be on the disk.
    for (LogIndex durable = before.next_index; durable-- >= reader.header().first_index;) {
      Correction made = summary(FrameKind::kSeal, durable, chain);
      if (chain == next_segment->previous) return made;
    }
  }
  return std::nullopt;
}

Result<std::optional<Correction>> correct_frame(SegmentReader& reader, const SegmentHeader* next_segment,
                                                CorrectionLimits limits) {
  const uint64_t offset = reader.state().offset;
  const LogIndex index = reader.state().next_index;
  const uint64_t seed = placement_seed(reader.header().id, offset);
  Bytes head(kFrameHeaderBytes);
  head.resize(TRY(reader.read_bytes(head, offset)));
  if (head.size() < kFrameHeaderBytes) return std::nullopt;
  FrameHeader header;
  auto fits = [&](ByteView bytes) {
    return decode_frame_header(bytes, seed, header) == nullptr && header.index == index;
  };
  if (!fits(head)) {
    if (auto found = correct(head, offset, limits, fits)) return found;
    return correct_summary(reader, next_segment);
  }
  size_t bytes = header.frame_bytes() - kFrameHeaderBytes;
  if (bytes <= limits.every_bit && offset + header.frame_bytes() <= reader.limit()) {
    Bytes payload(bytes);
    payload.resize(TRY(reader.read_bytes(payload, offset + kFrameHeaderBytes)));
    auto found = correct(std::move(payload), offset + kFrameHeaderBytes, limits,
                         [&](ByteView all) { return hash64(all) == header.checksum; });
    if (found) return found;
  }
  return header.kind == FrameKind::kBatch ? std::nullopt : TRY(correct_summary(reader, next_segment));
}

}  // namespace

Result<std::optional<Correction>> find_correction(Directory& directory, const JournalIdentity& identity,
                                                  const JournalReport& report, CorrectionLimits limits) {
  if (report.damaged >= report.sequences.size()) return std::nullopt;
  uint64_t sequence = report.sequences[report.damaged];
  auto file = directory.open(segment_name(sequence), OpenMode::kRead);
  if (!file && file.error().code() == Code::kCorrupt) return std::nullopt;  // no file, but a pipe or the like
  if (!file) return std::unexpected(file.error());
  auto reader = open_own_segment(directory, sequence, identity);
  if (!reader && reader.error().code() != Code::kCorrupt) return std::unexpected(reader.error());
  if (!reader) return correct_start(**file, identity, sequence, limits);
  if (report.damaged_offset == 0) return std::nullopt;  // sound in itself, but it does not follow
  if ((*reader)->compressed())
    return TRY(CompressedSegment::open(std::move(*file), (*reader)->header()))
        ->correct_block(report.damaged_offset, limits);
  // Up to the damage; a batch that only its content damns is passed.
  while ((*reader)->state().offset < report.damaged_offset) {
    auto frame = (*reader)->next();
    if (!frame && frame.error().code() != Code::kCorrupt) return std::unexpected(frame.error());
    if (!frame || !*frame) return std::nullopt;
  }
  std::unique_ptr<SegmentReader> next;
  if (report.damaged + 1 < report.sequences.size()) {
    auto opened = open_own_segment(directory, report.sequences[report.damaged + 1], identity);
    if (opened) next = std::move(*opened);
  }
  return correct_frame(**reader, next == nullptr ? nullptr : &next->header(), limits);
}

}  // namespace reprise::journal
