#include "base/disk.h"

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

}  // namespace reprise
