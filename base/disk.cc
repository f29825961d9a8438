#include "base/disk.h"

#include <algorithm>

namespace reprise {

Result<Bytes> Directory::read_file(std::string_view name, uint64_t limit) {
  auto file = TRY(open(name, OpenMode::kRead));
  uint64_t size = TRY(file->size());
  if (size > limit) {
    return fail(Code::kCorrupt, file->path() + ": expected at most " + std::to_string(limit) +
                                    " bytes, found " + std::to_string(size));
  }
  Bytes bytes(size);
  bytes.resize(TRY(file->pread(bytes, 0)));
  return bytes;
}

Status Directory::replace_file(std::string_view name, ByteView bytes) {
  std::string temporary = std::string(name) + ".new";
  {
    auto file = TRY(open(temporary, OpenMode::kCreateOrOpen));
    TRY(file->resize(0));
    TRY(file->pwrite(bytes, 0));
    TRY(file->sync_data());
  }
  TRY(rename(temporary, name));
  return sync();
}

Result<uint64_t> copy_sparsely(const File& from, uint64_t begin, File& to) {
  constexpr size_t kPiece = 1 << 20;
  Bytes piece;
  uint64_t at = begin, written_to = begin;
  for (;; at += piece.size()) {
    at = TRY(from.next_data(at));
    piece.resize(kPiece);
    piece.resize(TRY(from.pread(piece, at)));
    if (piece.empty()) break;
    if (std::ranges::all_of(piece, [](std::byte b) { return b == std::byte{0}; })) continue;
    TRY(to.pwrite(piece, at - begin));
    written_to = at + piece.size();
  }
  if (written_to != at) TRY(to.resize(at - begin));
  TRY(to.sync_data());
  return at - begin;
}

}  // namespace reprise
