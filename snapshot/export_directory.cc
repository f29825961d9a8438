#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/host_tree.h"
#include "fs/content_digest.h"
#include "snapshot/directory_writer.h"
#include "snapshot/export_walk.h"

namespace reprise::snapshot {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

std::string join(const std::string& directory, std::string_view name) {
  return directory.empty() ? std::string(name) : directory + "/" + std::string(name);
}

// Moves a directory's entries over those of another, both below one HostTree.
class Merge {
 public:
  Merge(HostTree& host, std::string from) : host_(host), from_(std::move(from)) {}

  // Would a directory and another file meet?
  Status check() {
    plan_.clear();
    return check_below("");
  }
  Status run(bool owners) {
    for (const Move& move : plan_) {
      if (!move.merges) TRY(host_.rename(join(from_, move.path), move.path));
    }
    // The directories that were merged, children first, once nothing in them changes any more.
    for (auto move = plan_.rbegin(); move != plan_.rend(); ++move) {
      if (!move->merges) continue;
      if (owners) TRY(host_.set_owner(move->path, move->entry.uid, move->entry.gid));
      TRY(host_.set_mode(move->path, move->entry.mode & 07777));
      TRY(host_.set_times(move->path, move->entry.atime, move->entry.mtime));
    }
    return {};
  }

 private:
  struct Move {
    std::string path;
    HostEntry entry;
    bool merges = false;  // it is a directory in both
  };

  Status check_below(const std::string& directory) {
    for (const std::string& name : TRY(host_.list(join(from_, directory)))) {
      std::string path = join(directory, name);
      HostEntry entry = TRY(host_.stat(join(from_, path)));
      auto there = host_.stat(path);
      if (!there && there.error().code() != Code::kNotFound) return std::unexpected(there.error());
      bool merges = there && S_ISDIR(there->mode) && S_ISDIR(entry.mode);
      if (there && S_ISDIR(there->mode) != S_ISDIR(entry.mode)) {
        return fail(Code::kAlreadyExists,
                    fmt::format("{}/{}: expected {}, found {}", printable(host_.path()), printable(path),
                                S_ISDIR(entry.mode) ? "a directory or nothing" : "anything but a directory",
                                S_ISLNK(there->mode)   ? "a symlink, which is not followed"
                                : S_ISDIR(there->mode) ? "one"
                                                       : "another file"));
      }
      plan_.push_back({path, entry, merges});
      if (merges) TRY(check_below(path));
    }
    return {};
  }

  HostTree& host_;
  const std::string from_;
  std::vector<Move> plan_;
};

}  // namespace

Result<Exported> export_directory(const fs::Tree& tree, InodeId top, const std::string& path,
                                  const ExportOptions& options, Random& random,
                                  const ExportProgress& progress) {
  auto staged = TRY(StagedHostTree::begin(path, random));
  DirectoryWriter writer(tree, staged->tree(), "", options);
  Exported exported = TRY(walk_tree(tree, top, writer, options, progress));
  TRY(staged->publish());
  return exported;
}

Result<Exported> export_over_directory(const fs::Tree& tree, InodeId top, const std::string& path,
                                       const ExportOptions& options, Random& random,
                                       const ExportProgress& progress) {
  auto host = TRY(HostTree::open(path));
  std::string aside = fmt::format(".reprise-{:08x}", static_cast<uint32_t>(random.next()));
  TRY(host->make_directory(aside));
  auto write = [&]() -> Result<Exported> {
    DirectoryWriter writer(tree, *host, aside, options);
    Exported exported = TRY(walk_tree(tree, top, writer, options, progress));
    Merge merge(*host, aside);
    TRY(merge.check());
    TRY(host->sync());
    TRY(merge.run(options.owners));
    return exported;
  };
  auto exported = write();
  Status removed = host->remove_all(aside);
  if (exported && !removed) return std::unexpected(removed.error());
  if (exported) TRY(host->sync());
  return exported;
}

namespace {

Status add_file(fs::ContentDigest& digest, HostTree& host, const std::string& path, Bytes& buffer) {
  auto file = TRY(host.open_file(path));
  HostEntry entry = TRY(file->stat());
  fs::FileContentHash hash;
  buffer.resize(kChunkBytes);
  for (uint64_t offset = 0; offset < entry.size;) {
    uint64_t data = TRY(file->seek_data(offset));
    if (data >= entry.size) break;
    uint64_t end = std::min(entry.size, TRY(file->seek_hole(data)));
    // Whole blocks, so that each is hashed once, whatever the host's holes are multiples of.
    for (offset = data / fs::kBlockSize * fs::kBlockSize; offset < end; offset += kChunkBytes) {
      hash.add_bytes(offset, ByteView(buffer).first(TRY(file->pread(buffer, offset))));
    }
  }
  digest.add_file(path, entry.mode, entry.size, hash);
  return {};
}

}  // namespace

Result<Digest128> content_digest_of_directory(const std::string& path) {
  auto host = TRY(HostTree::open(path));
  fs::ContentDigest digest;
  Bytes buffer;
  std::vector<std::string> directories = {""};
  while (!directories.empty()) {
    std::string directory = std::move(directories.back());
    directories.pop_back();
    for (const std::string& name : TRY(host->list(directory))) {
      std::string entry_path = join(directory, name);
      HostEntry entry = TRY(host->stat(entry_path));
      if (S_ISREG(entry.mode)) {
        TRY(add_file(digest, *host, entry_path, buffer));
      } else if (S_ISLNK(entry.mode)) {
        digest.add_symlink(entry_path, TRY(host->read_link(entry_path)));
      } else {
        digest.add_other(entry_path, entry.mode, entry.rdev);
        if (S_ISDIR(entry.mode)) directories.push_back(std::move(entry_path));
      }
    }
  }
  return digest.value();
}

}  // namespace reprise::snapshot
