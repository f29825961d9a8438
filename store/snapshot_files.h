// The records of snapshots as files, a second copy beside the catalogue: from them, the packs and the
// journals it can be made anew. docs/snapshot-format.md, section 5. Private to this folder.
//
// A file is written before its record is committed and removed afterwards, so there may be one too many after
// a crash, never one too few. Threads: any; what is put is put one at a time, in a transaction of the
// catalogue.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/disk.h"
#include "store/catalogue.h"

namespace reprise::store {

struct SnapshotCopy {
  SnapshotRecord record;
  std::vector<MarkRecord> marks;  // that came into the catalogue with it
};

class SnapshotFiles {
 public:
  explicit SnapshotFiles(std::unique_ptr<Directory> directory) : directory_(std::move(directory)) {}
  Status put(const SnapshotCopy& copy);                 // durable on return
  Status replace_record(const SnapshotRecord& record);  // its marks stay
  Status remove(uint64_t id);                           // also where somebody else has done so
  // Those up to `last`; durable on return.
  Status remove_all_but(const std::vector<uint64_t>& ids, uint64_t last);
  // The files of snapshots that are not among these.
  Result<std::vector<std::string>> names_of_others(const std::vector<uint64_t>& ids);
  // What is wrong with those of these snapshots: damaged, of another snapshot, or missing.
  Result<std::vector<Error>> check(const std::vector<SnapshotRecord>& records);
  // The name of the file, if it is there and damaged.
  Result<std::optional<std::string>> damaged_file(uint64_t id);
  // By number. What is damaged is left out, and said.
  Result<std::vector<SnapshotCopy>> all(std::vector<Error>& damaged) { return behind(0, damaged); }
  // The same of those with greater numbers than `last`.
  Result<std::vector<SnapshotCopy>> behind(uint64_t last, std::vector<Error>& damaged);
  std::string path_of(uint64_t id) const;

 private:
  Result<SnapshotCopy> read(const std::string& name);
  std::unique_ptr<Directory> directory_;
};

}  // namespace reprise::store
