// What was done in an overlay is brought to the directory that it rests on, unless that has changed in the
// same places (docs/lazy.md). Threads: one.
//
//   ChangesToApply changes(base, head, *host, paths, options);
//   std::vector<Conflict> conflicts = TRY(changes.check());
//   if (conflicts.empty()) conflicts = TRY(changes.apply(random));   // looks again; none: it is done
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/host_tree.h"
#include "fs/tree.h"
#include "snapshot/directory_writer.h"

namespace reprise::snapshot {

// A path that means something else in the overlay than it meant in the directory; one that was renamed is
// two.
struct ChangedPath {
  std::string path;                      // from the top, without a slash at either end
  std::optional<InodeId> before, after;  // in the base and in the overlay; at least one
  bool content = true;                   // else its attributes alone
};

struct Conflict {
  std::string path, why;  // printable
};

class ChangesToApply {
 public:
  // `base` is the directory as it was, `head` what is wanted; paths are each of another name. All outlive it.
  ChangesToApply(const fs::Tree& base, const fs::Tree& head, HostTree& host, std::vector<ChangedPath> paths,
                 const ExportOptions& options);

  // What the directory has in these places that neither was there when the overlay began, nor is what the
  // overlay has. Changes nothing.
  Result<std::vector<Conflict>> check();
  // Those that the last check found to be done already.
  size_t already() const;

  // Writes everything that is new to a hidden directory in this one, checks again, and moves it to its
  // places; then removes what is gone. Conflicts: nothing was done. After an error on the way every file is
  // the old one or the new one; done again, it goes on.
  Result<std::vector<Conflict>> apply(Random& random);

 private:
  struct Place {
    ChangedPath changed;
    std::string staged;    // where the new file waits, if there is one to be written
    bool already = false;  // the directory is as wanted
  };

  Status check_place(Place& place, std::vector<Conflict>& conflicts);
  Result<std::optional<HostEntry>> find(const std::string& path, std::vector<Conflict>& conflicts);
  // Empty, or what is different from the base.
  Result<std::string> difference_from_base(const Place& place, const HostEntry& now);
  Result<std::string> strangers_in(const std::string& directory);
  Result<bool> is_as_wanted(const std::string& path, const HostEntry& now, InodeId after);
  Result<bool> same_bytes(const std::string& path, InodeId file, uint64_t size);
  Status check_parent(const Place& place, std::vector<Conflict>& conflicts);
  bool becomes_directory(const std::string& path) const;
  bool is_directory(const std::optional<InodeId>& inode, const fs::Tree& tree) const;
  bool in_place(const Place& place) const;

  Result<ExportEntry> entry_of(InodeId inode, std::string path) const;
  Status stage(const std::string& folder);
  Status put_in_place();
  Status remove(const Place& place);

  const fs::Tree& base_;
  const fs::Tree& head_;
  HostTree& host_;
  const ExportOptions& options_;
  std::map<std::string, Place> places_;  // by path, so parents first
  Exported done_;
};

}  // namespace reprise::snapshot
