#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "base/host_tree.h"
#include "snapshot/entry_writer.h"

namespace reprise::snapshot {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

class DirectoryReader {
 public:
  DirectoryReader(HostTree& host, EntryWriter& out) : host_(host), out_(out) {}

  Result<Imported> run() {
    HostEntry top = TRY(host_.stat(""));
    TRY(bring(".", top));
    std::vector<std::string> directories = {""};
    for (size_t i = 0; i < directories.size(); i++) {
      const std::string directory = directories[i];  // which may move as others are appended
      for (const std::string& name : TRY(host_.list(directory))) {
        std::string path = directory.empty() ? name : fmt::format("{}/{}", directory, name);
        HostEntry entry = TRY(host_.stat(path));
        TRY(bring(path, entry));
        if (S_ISDIR(entry.mode)) directories.push_back(std::move(path));
      }
    }
    return out_.finish();
  }

 private:
  Status bring(const std::string& path, const HostEntry& entry) {
    std::string hard_link, target;
    if (!S_ISDIR(entry.mode) && entry.nlink > 1) {
      auto [known, is_new] = links_.try_emplace({entry.device, entry.inode}, path);
      if (!is_new) hard_link = known->second;
    }
    if (S_ISLNK(entry.mode)) target = TRY(host_.read_link(path));
    ImportEntry made{.path = path,
                     .mode = entry.mode,
                     .uid = entry.uid,
                     .gid = entry.gid,
                     .rdev = entry.rdev,
                     .size = entry.size,
                     .mtime = entry.mtime,
                     .atime = entry.atime,
                     .target = target,
                     .hard_link = hard_link,
                     .xattrs = {}};
    if (hard_link.empty() && !S_ISLNK(entry.mode)) made.xattrs = TRY(host_.xattrs(path == "." ? "" : path));
    if (TRY(out_.begin(made)) != EntryWriter::Begun::kFile) return {};
    TRY(bring_bytes(path, entry));
    return out_.end_file();
  }

  Status bring_bytes(const std::string& path, const HostEntry& entry) {
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
        TRY(out_.write(offset, ByteView(buffer_).first(got)));
        offset += got;
      }
    }
    return {};
  }

  HostTree& host_;
  EntryWriter& out_;
  std::map<std::pair<uint64_t, uint64_t>, std::string> links_;
  Bytes buffer_;
};

}  // namespace

Result<fs::Head> import_directory(const std::string& path, const ImportProgress& progress) {
  fs::Head head = fs::Head::create(Timestamp{});
  TRY(import_directory_into(head, path, ImportOptions::everything(), progress));
  return head;
}

Result<Imported> import_directory_into(fs::Head& head, const std::string& path, const ImportOptions& options,
                                       const ImportProgress& progress) {
  auto host = TRY(HostTree::open(path));
  EntryWriter out(head, options, path, EntryOrigin::kDirectory, progress);
  return DirectoryReader(*host, out).run();
}

}  // namespace reprise::snapshot
