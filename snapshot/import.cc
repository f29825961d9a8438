#include "snapshot/import.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "base/host_tree.h"

namespace reprise::snapshot {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

class Importer {
 public:
  Importer(HostTree& host, fs::Head& head, const std::function<void(const Imported&)>& progress)
      : host_(host), head_(head), progress_(progress) {}

  Status run() {
    directories_.push_back({"", kRootInode, TRY(host_.stat(""))});
    for (size_t i = 0; i < directories_.size(); i++) {
      Directory directory = directories_[i];
      for (const std::string& name : TRY(host_.list(directory.path))) TRY(bring(directory, name));
    }
    // Once nothing in them changes any more.
    for (const Directory& directory : directories_)
      TRY(set_attributes(directory.path, directory.inode, directory.entry));
    return {};
  }

 private:
  struct Directory {
    std::string path;
    InodeId inode;
    HostEntry entry;
  };

  Status bring(const Directory& directory, const std::string& name) {
    std::string path = directory.path.empty() ? name : directory.path + "/" + name;
    HostEntry entry = TRY(host_.stat(path));
    if (!S_ISDIR(entry.mode) && entry.nlink > 1) {
      auto [known, is_new] = links_.try_emplace({entry.device, entry.inode}, InodeId{next_});
      if (!is_new) {
        return apply(path, fs::Link{directory.inode, name, known->second, entry.mtime});
      }
    }
    InodeId inode{next_++};
    std::string target;
    if (S_ISLNK(entry.mode)) target = TRY(host_.read_link(path));
    bool device = S_ISCHR(entry.mode) || S_ISBLK(entry.mode);
    TRY(apply(path, fs::Create{.parent = directory.inode,
                               .name = name,
                               .inode = inode,
                               .mode = entry.mode,
                               .uid = entry.uid,
                               .gid = entry.gid,
                               .rdev = device ? entry.rdev : 0,
                               .target = target,
                               .time = entry.mtime}));
    if (S_ISREG(entry.mode)) TRY(bring_bytes(path, inode, entry));
    if (S_ISDIR(entry.mode)) {
      directories_.push_back({path, inode, entry});
    } else {
      TRY(set_attributes(path, inode, entry));
    }
    ++done_.entries;
    if (progress_) progress_(done_);
    return {};
  }

  Status bring_bytes(const std::string& path, InodeId inode, const HostEntry& entry) {
    auto file = TRY(host_.open_file(path));
    buffer_.resize(kChunkBytes);
    for (uint64_t offset = 0; offset < entry.size;) {
      uint64_t data = TRY(file->seek_data(offset));
      if (data >= entry.size) break;
      uint64_t end = std::min(TRY(file->seek_hole(data)), entry.size);
      for (offset = data; offset < end;) {
        size_t wanted = std::min<uint64_t>(kChunkBytes, end - offset);
        size_t got = TRY(file->pread(ByteSpan(buffer_).first(wanted), offset));
        if (got == 0) return {};  // it has become shorter meanwhile
        TRY(apply(path, fs::Write{inode, offset, ByteView(buffer_).first(got), entry.mtime}));
        offset += got;
        done_.bytes += got;
      }
    }
    return apply(path, fs::Truncate{inode, entry.size, entry.mtime});
  }

  Status set_attributes(const std::string& path, InodeId inode, const HostEntry& entry) {
    using Set = fs::SetAttributes;
    return apply(path,
                 Set{.inode = inode,
                     .mask = Set::kMode | Set::kUid | Set::kGid | Set::kAtime | Set::kMtime | Set::kCtime,
                     .mode = entry.mode & 07777,
                     .uid = entry.uid,
                     .gid = entry.gid,
                     .atime = entry.atime,
                     .mtime = entry.mtime,
                     .ctime = entry.mtime});
  }

  Status apply(const std::string& path, const fs::Operation& operation) {
    auto done = head_.apply(operation);
    if (done) return {};
    return fail(Code::kUnsupported,
                fmt::format("{}/{}: no tree can hold this ({}): {}", host_.path(), printable(path),
                            fs::operation_name(operation), fs::errno_text(done.error())));
  }

  HostTree& host_;
  fs::Head& head_;
  const std::function<void(const Imported&)>& progress_;
  Imported done_;
  std::vector<Directory> directories_;  // in an order with parents first
  std::map<std::pair<uint64_t, uint64_t>, InodeId> links_;
  uint64_t next_ = kRootInode.value + 1;
  Bytes buffer_;
};

}  // namespace

Result<fs::Head> import_directory(const std::string& path,
                                  const std::function<void(const Imported&)>& progress) {
  auto host = TRY(HostTree::open(path));
  fs::Head head = fs::Head::create(Timestamp{});
  TRY(Importer(*host, head, progress).run());
  return head;
}

}  // namespace reprise::snapshot
