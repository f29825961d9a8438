// EntryWriter: entries as directories and archives have them become a tree. The one place that decides what a
// name from outside may be, what is dropped, what is too much, and where an entry may go (import.h).
//
// It knows nothing of formats: a reader says what an entry is and then gives its bytes. Blocks that are zero
// become holes. Threads: one.
//
//   EntryWriter out(head, options, "site.zip", EntryOrigin::kZip);
//   if (TRY(out.begin({.path = "a/b", .mode = S_IFREG | 0644, .size = 3})) == EntryWriter::Begun::kFile) {
//     TRY(out.write(0, bytes));
//     TRY(out.end_file());
//   }
//   Imported done = TRY(out.finish());
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "snapshot/import.h"

namespace reprise::snapshot {

struct ImportEntry {
  std::string_view path;  // as it is spelled outside
  uint32_t mode = 0;      // type and permissions
  uint32_t uid = 0, gid = 0;
  uint64_t rdev = 0;
  uint64_t size = 0;  // of a regular file
  std::optional<Timestamp> mtime, atime, ctime;
  std::string_view target;     // of a symlink
  std::string_view hard_link;  // another name for the entry of this path; the rest is of no account then
  std::vector<std::pair<std::string, Bytes>> xattrs;
};

// Where entries come from. A directory's names are the host's, and mean what they mean there; an archive's
// may mean something else elsewhere. A tar may hold a name again, when it was updated: the last counts.
enum class EntryOrigin : uint8_t { kDirectory, kZip, kTar };

class EntryWriter {
 public:
  // `archive` is what errors begin with. `head` and `options` must outlive it.
  EntryWriter(fs::Head& head, const ImportOptions& options, std::string archive, EntryOrigin origin,
              const ImportProgress& progress = nullptr);

  enum class Begun : uint8_t { kFile, kDone, kSkipped };
  // kFile: its bytes are to be written now, and end_file() called.
  Result<Begun> begin(const ImportEntry& entry);
  // Of the file that was begun last; what is not written is a hole.
  Status write(uint64_t offset, ByteView bytes);
  // Its bytes stay where they are, and are read there; size is what begin() was told.
  Status rest_on(std::shared_ptr<fs::Source> source, ByteView key);
  Status end_file();
  // So much of the archive has been read: what limits().ratio is measured by.
  void set_archive_bytes(uint64_t bytes) { archive_bytes_ = bytes; }
  // Times of directories, once nothing in them changes any more.
  Result<Imported> finish();

  const std::string& archive() const { return archive_; }
  const ImportLimits& limits() const { return options_.limits; }
  // "archive: entry path: …"
  std::unexpected<Error> refuse(std::string_view path, std::string_view why,
                                Code code = Code::kCorrupt) const;

 private:
  struct Place {
    InodeId parent;
    std::string name;  // "" for the directory that is imported into
    std::string path;  // from there, without dots
  };
  struct OpenFile {
    InodeId inode;
    uint64_t size = 0;
    fs::SetAttributes attributes;
    std::string path;
    std::vector<std::pair<std::string, Bytes>> xattrs;
  };

  Status check_portable(std::string_view path) const;
  Result<std::vector<std::string_view>> parts_of(std::string_view path) const;
  Status find_top();
  Result<Place> place_of(std::string_view path, bool make_parents);
  Result<InodeId> enter(InodeId directory, std::string_view name, std::string_view path, bool make);
  Result<Begun> begin_directory(const Place& place, const ImportEntry& entry);
  Result<Begun> begin_link(const Place& place, const ImportEntry& entry);
  Status clear_place(const Place& place);
  Status set_attributes(InodeId inode, const ImportEntry& entry, std::string_view path);
  fs::SetAttributes attributes_of(InodeId inode, const ImportEntry& entry);
  Status set_xattrs(InodeId inode, const std::vector<std::pair<std::string, Bytes>>& xattrs,
                    std::string_view path);
  Status create(const Place& place, InodeId inode, const ImportEntry& entry);
  Status count_name(InodeId parent, std::string_view name, std::string_view path);
  Status check_unpacked(std::string_view path) const;
  Status write_run(uint64_t offset, ByteView bytes);
  Status apply(std::string_view path, const fs::Operation& operation);
  bool made_here(InodeId inode) const { return inode.value >= first_ && inode.value < next_; }

  fs::Head& head_;
  const ImportOptions& options_;
  const std::string archive_;
  const EntryOrigin origin_;
  const ImportProgress progress_;
  InodeId top_;            // 0 until it is needed
  uint64_t first_, next_;  // inode ids from here on, below those that origins mint, are what is made here
  std::unordered_set<uint64_t> folded_;      // hashes of names in lower case, each with its directory
  std::unordered_set<std::string> skipped_;  // paths of what was left out: links to it are, too
  std::unordered_map<InodeId, fs::SetAttributes> directories_;
  std::string cached_path_;  // of the directory found last
  InodeId cached_inode_;
  OpenFile file_;
  Imported done_;
  std::optional<uint64_t> archive_bytes_;
  uint64_t unpacked_bytes_ = 0;
};

}  // namespace reprise::snapshot
