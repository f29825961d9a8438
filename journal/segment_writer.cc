#include "journal/segment_writer.h"

#include "base/hash.h"

namespace reprise::journal {
namespace {

constexpr size_t kWriteBytes = 1 << 20;  // buffered before a write

// Of a sync, that there was no space does not mean that trying again helps: the bytes may be gone.
Status synced(Status status) {
  if (status || status.error().code() != Code::kNoSpace) return status;
  return std::unexpected(Error(Code::kIo, status.error().message(), status.error().sys_errno()));
}

}  // namespace

Result<std::unique_ptr<SegmentWriter>> SegmentWriter::begin(std::unique_ptr<File> file,
                                                            const SegmentHeader& header) {
  Bytes bytes = encode_segment_header(header);
  TRY(file->resize(0));
  TRY(file->pwrite(bytes, 0));
  SegmentState state{.offset = bytes.size(),
                     .next_index = header.first_index,
                     .summary = {.chain = segment_header_checksum(bytes)}};
  return std::make_unique<SegmentWriter>(std::move(file), header.id, state);
}

Result<std::unique_ptr<SegmentWriter>> SegmentWriter::create(Directory& directory,
                                                             const SegmentHeader& header) {
  std::string name = segment_name(header.sequence);
  std::string temporary = name + ".new";
  auto begun = TRY(begin(TRY(directory.open(temporary, OpenMode::kCreateOrOpen)), header));
  TRY(begun->sync());
  TRY(directory.rename(temporary, name));
  TRY(synced(directory.sync()));
  // Once more, so that messages call the file by its name.
  return std::make_unique<SegmentWriter>(TRY(directory.open(name, OpenMode::kReadWrite)), header.id,
                                         begun->state());
}

SegmentWriter::SegmentWriter(std::unique_ptr<File> file, SegmentId id, const SegmentState& state)
    : file_(std::move(file)), id_(id), state_(state), flushed_(state) {}

void SegmentWriter::add(const Batch& batch, LogIndex durable_through) {
  FrameHeader header{.kind = FrameKind::kBatch,
                     .message_bytes = static_cast<uint32_t>(batch.message().size()),
                     .body_bytes = static_cast<uint32_t>(batch.body().size()),
                     .index = state_.next_index,
                     .durable_through = durable_through,
                     .origin = batch.header().origin,
                     .lsn = batch.header().lsn,
                     .checksum = batch.checksum()};
  add_frame(header, batch.message(), batch.body());
  state_.next_index += 1;
  state_.summary.batches += 1;
  state_.summary.batch_bytes += batch.encoded_bytes();
}

bool SegmentWriter::wants_flush() const {
  return buffer_.size() >= kWriteBytes;
}

Status SegmentWriter::add_summary(FrameKind kind, LogIndex durable_through) {
  std::byte payload[FrameSummary::kBytes];
  state_.summary.encode(payload);
  add_frame({.kind = kind,
             .message_bytes = FrameSummary::kBytes,
             .index = state_.next_index,
             .durable_through = durable_through,
             .checksum = hash64(payload)},
            payload, {});
  state_.sealed = kind == FrameKind::kSeal;
  return flush();
}

void SegmentWriter::add_frame(FrameHeader header, ByteView first, ByteView second) {
  size_t at = buffer_.size();
  buffer_.resize(at + kFrameHeaderBytes);
  header.self_checksum = encode_frame_header(header, placement_seed(id_, state_.offset), buffer_.data() + at);
  append_bytes(buffer_, first);
  append_bytes(buffer_, second);
  state_.offset += header.frame_bytes();
  state_.summary.chain = extend_chain(state_.summary.chain, header);
}

Status SegmentWriter::flush() {
  if (buffer_.empty()) return {};
  Status written = file_->pwrite(buffer_, flushed_.offset);
  if (written)
    flushed_ = state_;
  else if (written.error().code() == Code::kNoSpace)
    state_ = flushed_;
  else
    return written;
  buffer_.clear();
  return written;
}

Status SegmentWriter::sync() {
  TRY(flush());
  return synced(file_->sync_data());
}

}  // namespace reprise::journal
