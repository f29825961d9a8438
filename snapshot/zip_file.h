// ZipFile: libzip on a File of ours, so that it opens nothing itself. What libzip allocates lives as long as
// the object. Threads: one.
#pragma once

#include <zip.h>

#include <memory>
#include <optional>
#include <string>

#include "base/disk.h"
#include "base/error.h"

namespace reprise::snapshot {

class ZipFile {
 public:
  static Result<std::unique_ptr<ZipFile>> open(const File& archive);  // to read
  static Result<std::unique_ptr<ZipFile>> create(File& archive);  // empty; everything is written by close()
  ~ZipFile();                                                     // what was not closed is discarded
  ZipFile(const ZipFile&) = delete;
  ZipFile& operator=(const ZipFile&) = delete;

  zip_t* get() const { return zip_; }
  Status close();
  // Of the file if that failed; else in libzip's words.
  Error error(std::string_view doing) const;

 private:
  explicit ZipFile(const File& reads, File* writes) : reads_(reads), writes_(writes) {}
  Status begin(int flags);
  static zip_int64_t answer(void* self, void* data, zip_uint64_t size, zip_source_cmd_t command);
  zip_int64_t serve(void* data, zip_uint64_t size, zip_source_cmd_t command);
  zip_int64_t seek(uint64_t& place, uint64_t end, void* data, zip_uint64_t size);
  zip_int64_t keep(Status status);
  Status write(ByteView bytes);
  Status flush();

  const File& reads_;
  File* writes_;
  zip_t* zip_ = nullptr;
  zip_error_t zip_error_{};
  std::optional<Error> failure_;  // of the file
  uint64_t size_ = 0;             // of what is read
  uint64_t read_at_ = 0, write_at_ = 0, written_end_ = 0;
  // What is to be written at buffer_at_: libzip writes in small pieces, and a header again when its sizes are
  // known.
  Bytes buffer_;
  uint64_t buffer_at_ = 0;
};

}  // namespace reprise::snapshot
