#include "snapshot/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "base/host_tree.h"
#include "fs/content_digest.h"

namespace reprise::snapshot {
namespace {

constexpr size_t kChunkBytes = 1 << 20;
constexpr uint64_t kProgressEvery = 64;  // entries

std::string join(const std::string& directory, std::string_view name) {
  return directory.empty() ? std::string(name) : directory + "/" + std::string(name);
}

// A tree that answers with an errno where it should not is damaged.
template <class T>
Result<T> answer(fs::Outcome<T> outcome, const std::string& path) {
  if constexpr (std::is_void_v<T>) {
    if (outcome) return {};
  } else {
    if (outcome) return std::move(*outcome);
  }
  return fail(Code::kCorrupt,
              fmt::format("{} in the tree: {}", printable(path), fs::errno_text(outcome.error())));
}

class Exporter {
 public:
  Exporter(const fs::Tree& tree, HostTree& host, const ExportOptions& options,
           const std::function<void(const Exported&)>& progress)
      : tree_(tree), host_(host), options_(options), progress_(progress) {}

  Result<Exported> run(InodeId top) {
    fs::Attributes attributes = TRY(answer(tree_.stat(top), "the top"));
    if (!attributes.is_directory())
      return fail(Code::kInvalidArgument, "expected a directory to export, found something else");
    directories_.push_back({"", attributes});
    // Directories found on the way are appended; by the end they stand in an order with parents first.
    for (size_t i = 0; i < directories_.size(); i++) {
      const Directory directory = directories_[i];  // which may move as others are appended
      TRY(fill(directory.path, directory.attributes.inode));
    }
    // Permissions and times once nothing in them changes any more, children first.
    for (auto it = directories_.rbegin(); it != directories_.rend(); ++it)
      TRY(finish(it->path, it->attributes));
    if (progress_) progress_(done_);
    return done_;
  }

 private:
  struct Entry {
    std::string name;
    InodeId inode;
  };
  struct Directory {
    std::string path;
    fs::Attributes attributes;
  };

  Status fill(const std::string& directory, InodeId id) {
    std::vector<Entry> entries;
    auto read = tree_.read_directory(id, 0, [&](const fs::Dentry& entry) {
      entries.push_back({std::string(entry.name), entry.inode});
      return true;
    });
    TRY(answer(read, directory));
    for (const Entry& entry : entries) TRY(write(join(directory, entry.name), entry.inode));
    return {};
  }

  Status write(const std::string& path, InodeId id) {
    fs::Attributes attributes = TRY(answer(tree_.stat(id), path));
    if (progress_ && ++seen_ % kProgressEvery == 0) progress_(done_);
    if (attributes.is_directory()) {
      TRY(host_.make_directory(path));
      done_.directories++;
      directories_.push_back({path, attributes});
      return {};
    }
    if (attributes.nlink > 1) {
      auto [it, first] = written_.try_emplace(id, path);
      if (!first) {
        if (it->second.empty()) return {};  // a kind that is skipped
        done_.hard_links++;
        return host_.link(it->second, path);
      }
    }
    bool made = TRY(make(path, attributes));
    if (made) return finish(path, attributes);
    if (attributes.nlink > 1) written_[id].clear();
    return {};
  }

  // False if it is of a kind that is skipped.
  Result<bool> make(const std::string& path, const fs::Attributes& attributes) {
    switch (attributes.mode & S_IFMT) {
      case S_IFREG:
        TRY(write_file(path, attributes));
        done_.files++;
        return true;
      case S_IFLNK: {
        std::string target(TRY(answer(tree_.read_link(attributes.inode), path)));
        TRY(host_.make_symlink(path, target));
        done_.symlinks++;
        return true;
      }
      case S_IFIFO:
        TRY(host_.make_node(path, S_IFIFO | 0600, 0));
        done_.others++;
        return true;
      case S_IFCHR:
      case S_IFBLK: {
        if (!options_.devices) {
          done_.skipped_devices++;
          return false;
        }
        TRY(host_.make_node(path, (attributes.mode & S_IFMT) | 0600, attributes.rdev));
        done_.others++;
        return true;
      }
      default:
        done_.skipped_sockets++;
        return false;
    }
  }

  Status write_file(const std::string& path, const fs::Attributes& attributes) {
    auto file = TRY(host_.create_file(path));
    uint64_t end = 0;
    for (uint64_t offset = 0; offset < attributes.size; offset = end) {
      auto data = tree_.seek_data(attributes.inode, offset);
      if (!data) break;  // ENXIO: a hole to the end
      end = TRY(answer(tree_.seek_hole(attributes.inode, *data), path));
      for (uint64_t at = *data; at < end;) {
        buffer_.resize(std::min<uint64_t>(kChunkBytes, end - at));
        size_t got = TRY(answer(tree_.read(attributes.inode, at, buffer_), path));
        TRY(file->pwrite(ByteView(buffer_).first(got), at));
        done_.bytes += got;
        at += buffer_.size();
      }
    }
    if (end < attributes.size) TRY(file->resize(attributes.size));
    return {};
  }

  // Owner, attributes, permissions, times: in this order, because each of them may change those after it.
  Status finish(const std::string& path, const fs::Attributes& attributes) {
    if (options_.owners) TRY(host_.set_owner(path, attributes.uid, attributes.gid));
    if (!attributes.is_symlink()) {
      TRY(set_xattrs(path, attributes.inode));
      uint32_t mode = attributes.mode & 07777;
      if (!options_.set_ids && (mode & 06000) != 0) {
        mode &= 01777;
        done_.skipped_set_ids++;
      }
      TRY(host_.set_mode(path, mode));
    }
    return host_.set_times(path, attributes.atime, attributes.mtime);
  }

  Status set_xattrs(const std::string& path, InodeId id) {
    Status set;
    auto one = [&](std::string_view name, ByteView value) -> Status {
      if (!name.starts_with("user.")) {
        done_.skipped_xattrs++;
        return {};
      }
      Status result = host_.set_xattr(path, std::string(name), value);
      if (result || result.error().sys_errno() != ENOTSUP) return result;
      done_.skipped_xattrs++;  // the host's filesystem has none
      return {};
    };
    auto listed = tree_.list_xattrs(id, [&](std::string_view name, ByteView value) {
      if (set) set = one(name, value);
    });
    TRY(answer(listed, path));
    return set;
  }

  const fs::Tree& tree_;
  HostTree& host_;
  const ExportOptions& options_;
  const std::function<void(const Exported&)>& progress_;
  Exported done_;
  uint64_t seen_ = 0;
  std::vector<Directory> directories_;
  std::unordered_map<InodeId, std::string>
      written_;  // inodes with several names: the first, "" if it was skipped
  Bytes buffer_;
};

}  // namespace

Result<Exported> export_directory(const fs::Tree& tree, InodeId top, const std::string& path,
                                  const ExportOptions& options, Random& random,
                                  const std::function<void(const Exported&)>& progress) {
  auto staged = TRY(StagedHostTree::begin(path, random));
  Exported exported = TRY(Exporter(tree, staged->tree(), options, progress).run(top));
  TRY(staged->publish());
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
