// Bytes that come or go one after the other: standard input and output, pipes, files read from front to back;
// and a file that takes its place whole or not at all. What is imported comes through here, and what is
// exported to one file goes through here. Errors name the path. Threads: one at a time for each object.
#pragma once

#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/disk.h"
#include "base/error.h"

namespace reprise {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills `into`; fewer bytes only at the end.
  virtual Result<size_t> read(ByteSpan into) = 0;
  // Taken so far from what lies behind it: less than was read, where that is packed.
  virtual uint64_t taken_bytes() const = 0;
  virtual const std::string& path() const = 0;  // what messages call it
};

class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual Status write(ByteView bytes) = 0;
  virtual const std::string& path() const = 0;
};

// A file, pipe or anything else that can be opened to be read; a directory is kInvalidArgument.
Result<std::unique_ptr<ByteSource>> open_host_source(const std::string& path);
std::unique_ptr<ByteSource> standard_input();
std::unique_ptr<ByteSink> standard_output();

// The regular file at `path`, to be read anywhere; null if there is something else, which can only be read
// from front to back.
Result<std::unique_ptr<File>> open_regular_file(const std::string& path);
// A new file without a name, in TMPDIR or else /var/tmp; gone with the object.
Result<std::unique_ptr<File>> make_unnamed_file();

// A file in the making: a hidden one beside `path`, which takes its place at publish() or goes when the
// object does. What is at `path` must be a regular file or nothing, and stays until then.
class StagedFile final : public ByteSink {
 public:
  static Result<std::unique_ptr<StagedFile>> begin(const std::string& path, Random& random);
  ~StagedFile() override;

  File& file() { return *file_; }
  Status write(ByteView bytes) override;  // behind what was written this way before
  Status publish();                       // on the disk when it returns
  const std::string& path() const override { return path_; }

 private:
  StagedFile() = default;

  std::string path_, name_, temporary_;
  std::unique_ptr<Directory> directory_;
  std::unique_ptr<File> file_;
  uint64_t written_ = 0;
  bool published_ = false;
};

}  // namespace reprise
