#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/host_tree.h"
#include "fs/content_digest.h"
#include "snapshot/export_walk.h"

namespace reprise::snapshot {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

std::string join(const std::string& directory, std::string_view name) {
  return directory.empty() ? std::string(name) : directory + "/" + std::string(name);
}

class DirectoryWriter final : public EntrySink {
 public:
  // `place`, "" or a directory of `host`, is where everything goes.
  DirectoryWriter(const fs::Tree& tree, HostTree& host, std::string place, const ExportOptions& options)
      : tree_(tree), host_(host), place_(std::move(place)), options_(options) {}

  // Where the directory is one of somebody else's, that stays as it is.
  Status add_top(const ExportEntry& entry, Exported& done) override {
    if (!place_.empty()) return {};
    directories_.push_back({"", entry.attributes});
    return set_xattrs("", entry, done);
  }

  Status add(const ExportEntry& entry, Exported& done) override {
    std::string path = join(place_, entry.path);
    if (!entry.hard_link.empty()) {
      done.hard_links++;
      return host_.link(join(place_, entry.hard_link), path);
    }
    TRY(make(path, entry, done));
    Made made{std::move(path), entry.attributes};
    TRY(set_xattrs(made.path, entry, done));
    if (!entry.attributes.is_directory()) return finish_one(made);
    directories_.push_back(std::move(made));
    return {};
  }

  // Permissions and times once nothing in them changes any more, children first.
  Status finish() override {
    for (auto it = directories_.rbegin(); it != directories_.rend(); ++it) TRY(finish_one(*it));
    return {};
  }

 private:
  struct Made {
    std::string path;
    fs::Attributes attributes;
  };

  Status make(const std::string& path, const ExportEntry& entry, Exported& done) {
    uint32_t mode = entry.attributes.mode;
    switch (mode & S_IFMT) {
      case S_IFDIR:
        done.directories++;
        return host_.make_directory(path);
      case S_IFREG:
        done.files++;
        return write_file(path, entry, done);
      case S_IFLNK:
        done.symlinks++;
        return host_.make_symlink(path, std::string(entry.target));
      default:
        done.others++;
        return host_.make_node(path, (mode & S_IFMT) | 0600, entry.attributes.rdev);
    }
  }

  Status write_file(const std::string& path, const ExportEntry& entry, Exported& done) {
    auto file = TRY(host_.create_file(path));
    uint64_t end = 0;
    TRY(for_each_piece(tree_, entry, buffer_, [&](uint64_t offset, ByteView bytes) {
      end = offset + bytes.size();
      done.bytes += bytes.size();
      return file->pwrite(bytes, offset);
    }));
    if (end < entry.attributes.size) TRY(file->resize(entry.attributes.size));
    return {};
  }

  // Owner, permissions, times: in this order, because each of them may change those after it.
  Status finish_one(const Made& made) {
    const fs::Attributes& attributes = made.attributes;
    if (options_.owners) TRY(host_.set_owner(made.path, attributes.uid, attributes.gid));
    if (!attributes.is_symlink()) TRY(host_.set_mode(made.path, attributes.mode & 07777));
    return host_.set_times(made.path, attributes.atime, attributes.mtime);
  }

  Status set_xattrs(const std::string& path, const ExportEntry& entry, Exported& done) {
    for (const auto& [name, value] : entry.xattrs) {
      bool wanted = name.starts_with("user.") || options_.all_xattrs;
      Status result = wanted ? host_.set_xattr(path, std::string(name), value) : Status{};
      if (!result && result.error().sys_errno() != ENOTSUP) return result;
      if (!result || !wanted) done.skipped_xattrs++;  // the host's filesystem has none
    }
    return {};
  }

  const fs::Tree& tree_;
  HostTree& host_;
  const std::string place_;
  const ExportOptions& options_;
  std::vector<Made> directories_;  // in an order with parents first
  Bytes buffer_;
};

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
