// HostFile: an open file of the host as a File (base/disk.h). Private to base/: who opens it decides how.
// Owns its descriptor. Threads: as a File.
#pragma once

#include <string>

#include "base/descriptor.h"
#include "base/disk.h"

namespace reprise {

class HostFile final : public File {
 public:
  // `path` is for messages.
  HostFile(Descriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Result<size_t> pread(ByteSpan into, uint64_t offset) const override;
  Status pwrite(ByteView bytes, uint64_t offset) override;
  Result<uint64_t> size() const override;
  Result<uint64_t> next_data(uint64_t offset) const override;
  Status resize(uint64_t bytes) override;
  Status sync_data() override;
  const std::string& path() const override { return path_; }
  int fd() const { return fd_.get(); }

 private:
  Descriptor fd_;
  std::string path_;
};

}  // namespace reprise
