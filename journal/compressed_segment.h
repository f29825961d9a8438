// A segment that ended, in less room: the bytes of its frames in blocks, each a zstd frame of its own, behind
// its header, with an index of the blocks at the end (docs/journal-format.md).
//
// Reading one gives the bytes that the segment had, at the offsets they had, so that all checksums still
// cover them and whoever reads frames need not know. A place is found by the index, and only the block that
// holds it is decompressed. Neither side keeps more than a block or two in memory. Private to this folder.
// One thread's objects.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/disk.h"
#include "journal/segment_format.h"

namespace reprise::journal {

class SegmentReader;
struct Correction;        // correction.h
struct CorrectionEffort;  // repair.h

class CompressedSegment final : public File {
 public:
  static constexpr uint32_t kBlockBytes = 256 * 1024;  // of frames in each block, but in the last

  // `file` begins with this header. kCorrupt unless its index is whole and fits.
  static Result<std::unique_ptr<CompressedSegment>> open(std::unique_ptr<File> file,
                                                         const SegmentHeader& header);

  // Of each block in which a frame begins: where, which batch comes next there, and the encoded bytes of the
  // batches in this segment before it.
  std::vector<ReadPoint> points() const;

  // The segment as it was written: its header without the feature, then the frames.
  Result<size_t> pread(ByteSpan into, uint64_t offset) const override;
  Result<uint64_t> size() const override { return plain_bytes_; }
  const std::string& path() const override { return file_->path(); }
  // Nobody writes to it: kReadOnly.
  Status pwrite(ByteView bytes, uint64_t offset) override;
  Status resize(uint64_t bytes) override;
  Status sync_data() override;

  // Where the file ended, if something was appended to it since. `file` begins with this header.
  static Result<std::optional<uint64_t>> find_end(const File& file, const SegmentHeader& header);
  // Where it cannot be opened: the byte that is wrong in its index. `file` begins with this header.
  static Result<std::optional<Correction>> correct_index(const File& file, const SegmentHeader& header,
                                                         const CorrectionEffort& effort);
  // The index and the end as they have to be, and from where on, made from the blocks alone: of those that
  // are whole, up to the first that is not, and of the frames in them, up to the first that does not verify.
  // nullopt if there is no batch; or if that is what is there already. `file` begins with this header.
  static Result<std::optional<Correction>> make_index_anew(std::unique_ptr<File> file,
                                                           const SegmentHeader& header);
  // Where in the file blocks lie that are not what they were; and of one of them, the byte that is wrong.
  Result<std::vector<uint64_t>> damaged_blocks() const;
  Result<std::optional<Correction>> correct_block(uint64_t offset, const CorrectionEffort& effort) const;

 private:
  friend class SegmentCompressor;
  struct Block {
    uint64_t offset = 0;  // in the file
    uint32_t bytes = 0;   // there
    uint64_t checksum = 0;
    ReadPoint point;  // index 0: no frame begins in it
  };

  CompressedSegment(std::unique_ptr<File> file, Bytes plain_header)
      : file_(std::move(file)), plain_header_(std::move(plain_header)) {}
  Status read_index(const SegmentHeader& header);
  Status add_block(ByteView entry, uint64_t index_offset);
  Status load(size_t block) const;
  Status find_blocks();
  static Status note_points(SegmentReader& from, std::vector<Block>& blocks,
                            const std::function<bool()>& cancelled);
  static Bytes encode_index(const std::vector<Block>& blocks, uint64_t plain_bytes, SegmentId id);
  uint64_t frames_bytes() const { return plain_bytes_ - plain_header_.size(); }
  std::unexpected<Error> damaged(std::string what) const;

  std::unique_ptr<File> file_;
  Bytes plain_header_;
  uint64_t plain_bytes_ = 0;
  std::vector<Block> blocks_;
  mutable size_t loaded_ = SIZE_MAX;  // the block in plain_
  mutable Bytes plain_, stored_;
};

// Makes a compressed copy of the segment `sequence`, which ended, as compressed_copy_name(): on the disk and
// read back when it returns, but not yet in the segment's place. Its points(). kCorrupt when a frame of the
// segment does not verify, kCancelled when `cancelled` says so, kNotFound, or what the disk says; then the
// copy is gone again, if the disk lets go of it.
Result<std::vector<ReadPoint>> compress_segment(Directory& directory, uint64_t sequence,
                                                const std::function<bool()>& cancelled);
std::string compressed_copy_name(uint64_t sequence);
// Puts the copy in the segment's place, on the disk when it returns.
Status replace_by_compressed(Directory& directory, uint64_t sequence);

}  // namespace reprise::journal
