// A filesystem in this process, served to a command in a mount of its own: what the tests of adapters/fuse
// share.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "adapters/fuse/mount.h"
#include "adapters/fuse/server.h"
#include "fs/filesystem.h"

namespace reprise::fuse::testing {

// A directory on the host that goes when it does; anybody may read it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string read_host_file(const std::string& path);

struct Ran {
  int status = -1;
  std::string output;  // stdout and stderr
};

// One filesystem; commands run in it one after the other.
class Mounted {
 public:
  explicit Mounted(bool read_only = false);

  // Runs a shell script in the root of the mount, up to the first command that fails. `fails COMMAND` is a
  // command that must. $OUT is a directory outside the mount, $PYTHON a Python.
  Ran run(const std::string& script);
  // Runs a command, which may not exist.
  Ran run_command(std::vector<std::string> command);

  // A path of names from the root.
  InodeId inode_at(std::string_view path);
  fs::Filesystem& filesystem() { return filesystem_; }
  ServerOptions& options() { return options_; }
  const TemporaryDirectory& outside() const { return outside_; }
  const std::string& mountpoint() const { return mountpoint_; }

 private:
  TemporaryDirectory outside_;
  std::string mountpoint_;
  bool read_only_;
  std::unique_ptr<fs::InodeIdSource> ids_;
  fs::Filesystem filesystem_;
  ServerOptions options_;
};

// A guest that does one thing at a time on request: a Python inside the mount, which evaluates what it is
// asked. Functions: read(path), write(path, data), size(path), ls(path), exists(path), keep(name, value) for
// later use as kept[name], and those of the module os; an OSError is answered by name.
class Guest {
 public:
  explicit Guest(Mounted& mounted);
  ~Guest();

  // The value as repr() writes it, or the name of the errno.
  std::string ask(const std::string& expression);
  Server& server() { return *server_; }
  instance::CoherenceHook& coherence() { return server_->coherence(); }

 private:
  std::string request_path_, reply_path_;
  std::unique_ptr<Launch> launch_;
  std::unique_ptr<Server> server_;
  std::FILE* requests_ = nullptr;
  std::FILE* replies_ = nullptr;
};

}  // namespace reprise::fuse::testing
