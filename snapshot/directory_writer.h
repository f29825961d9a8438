// DirectoryWriter: entries of a tree become files of the host, each finished as it comes, directories at the
// end. For exports and for what is brought back to a directory. Threads: one.
#pragma once

#include <string>
#include <vector>

#include "base/host_tree.h"
#include "snapshot/export_walk.h"

namespace reprise::snapshot {

class DirectoryWriter final : public EntrySink {
 public:
  // `place`, "" or a directory of `host`, is where everything goes. All of these outlive it.
  DirectoryWriter(const fs::Tree& tree, HostTree& host, std::string place, const ExportOptions& options)
      : tree_(tree), host_(host), place_(std::move(place)), options_(options) {}

  // Where the directory is one of somebody else's, that stays as it is.
  Status add_top(const ExportEntry& entry, Exported& done) override;
  Status add(const ExportEntry& entry, Exported& done) override;
  // Permissions and times once nothing in them changes any more, children first.
  Status finish() override;

  // Of a file that is there: owner, permissions, times; extended attributes that the entry has.
  Status set_attributes(const std::string& path, const ExportEntry& entry, Exported& done);

 private:
  struct Made {
    std::string path;
    fs::Attributes attributes;
  };

  Status make(const std::string& path, const ExportEntry& entry, Exported& done);
  Status write_file(const std::string& path, const ExportEntry& entry, Exported& done);
  Status finish_one(const Made& made);
  Status set_xattrs(const std::string& path, const ExportEntry& entry, Exported& done);

  const fs::Tree& tree_;
  HostTree& host_;
  const std::string place_;
  const ExportOptions& options_;
  std::vector<Made> directories_;  // in an order with parents first
  Bytes buffer_;
};

}  // namespace reprise::snapshot
