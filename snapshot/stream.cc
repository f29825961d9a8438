#include "snapshot/stream.h"

#include <fmt/format.h>

#include <unordered_set>

#include "base/hash.h"

namespace reprise::snapshot {
namespace {

// Each blob after its length (u32), as many to a piece as go in whole.
class PieceWriter final : public store::BlobSink {
 public:
  PieceWriter(size_t piece_bytes, const std::function<Status(ByteView)>& write,
              const std::function<bool(BlobId)>& has)
      : piece_bytes_(piece_bytes), write_(write), has_(has) {
    piece_.reserve(piece_bytes);
  }

  Result<BlobId> put(ByteView bytes) override { return put_parts({&bytes, 1}, store::Refers::kMaybe); }

  Result<BlobId> put_parts(std::span<const ByteView> parts, store::Refers) override {
    size_t size = 0;
    for (ByteView part : parts) size += part.size();
    CHECK(size <= kNodeBlobMax);
    if (piece_.size() + sizeof(uint32_t) + size > piece_bytes_) TRY(flush());
    size_t before = piece_.size();
    append_value(piece_, static_cast<uint32_t>(size));
    for (ByteView part : parts) append_bytes(piece_, part);
    BlobId id = hash128(ByteView(piece_).subspan(before + sizeof(uint32_t)));
    if ((has_ && has_(id)) || !sent_.insert(id).second) piece_.resize(before);
    return id;
  }

  Status flush() {
    if (piece_.empty()) return {};
    TRY(write_(piece_));
    piece_.clear();
    return {};
  }

 private:
  const size_t piece_bytes_;
  const std::function<Status(ByteView)>& write_;
  const std::function<bool(BlobId)>& has_;
  Bytes piece_;
  std::unordered_set<BlobId> sent_;
};

}  // namespace

Result<Captured> send_tree(const fs::Tree& tree, size_t piece_bytes,
                           const std::function<Status(ByteView)>& write,
                           const std::function<bool(BlobId)>& has) {
  CHECK(piece_bytes >= kPieceBytes);
  PieceWriter writer(piece_bytes, write, has);
  Captured captured = TRY(capture(tree, writer, Remember::kNo));
  TRY(writer.flush());
  return captured;
}

Status TreeReceiver::add_all_of(const fs::Tree& tree) {
  class Adding final : public store::BlobSink {
   public:
    explicit Adding(TreeBuilder& builder) : builder_(builder) {}
    Result<BlobId> put(ByteView bytes) override {
      BlobId id = hash128(bytes);
      TRY(builder_.add(id, bytes));
      return id;
    }

   private:
    TreeBuilder& builder_;
  } adding(builder_);
  TRY(capture(tree, adding, Remember::kNo));
  return {};
}

Status TreeReceiver::add(ByteView piece) {
  ByteReader in(piece);
  while (in.remaining() > 0) {
    auto size = in.value<uint32_t>();
    ByteView blob = in.take(size);
    if (!in.ok()) {
      return fail(Code::kCorrupt,
                  fmt::format("piece of a tree: expected whole blobs, found {} bytes cut off", piece.size()));
    }
    TRY(builder_.add(hash128(blob), blob));
  }
  return {};
}

}  // namespace reprise::snapshot
