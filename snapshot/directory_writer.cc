#include "snapshot/directory_writer.h"

#include <cerrno>

namespace reprise::snapshot {
namespace {

std::string join(const std::string& directory, std::string_view name) {
  return directory.empty() ? std::string(name) : directory + "/" + std::string(name);
}

}  // namespace

Status DirectoryWriter::add_top(const ExportEntry& entry, Exported& done) {
  if (!place_.empty()) return {};
  directories_.push_back({"", entry.attributes});
  return set_xattrs("", entry, done);
}

Status DirectoryWriter::add(const ExportEntry& entry, Exported& done) {
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

Status DirectoryWriter::finish() {
  for (auto it = directories_.rbegin(); it != directories_.rend(); ++it) TRY(finish_one(*it));
  return {};
}

Status DirectoryWriter::set_attributes(const std::string& path, const ExportEntry& entry, Exported& done) {
  TRY(set_xattrs(path, entry, done));
  return finish_one({path, entry.attributes});
}

Status DirectoryWriter::make(const std::string& path, const ExportEntry& entry, Exported& done) {
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

Status DirectoryWriter::write_file(const std::string& path, const ExportEntry& entry, Exported& done) {
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
Status DirectoryWriter::finish_one(const Made& made) {
  const fs::Attributes& attributes = made.attributes;
  if (options_.owners) TRY(host_.set_owner(made.path, attributes.uid, attributes.gid));
  if (!attributes.is_symlink()) TRY(host_.set_mode(made.path, attributes.mode & 07777));
  return host_.set_times(made.path, attributes.atime, attributes.mtime);
}

Status DirectoryWriter::set_xattrs(const std::string& path, const ExportEntry& entry, Exported& done) {
  for (const auto& [name, value] : entry.xattrs) {
    bool wanted = name.starts_with("user.") || options_.all_xattrs;
    Status result = wanted ? host_.set_xattr(path, std::string(name), value) : Status{};
    if (!result && result.error().sys_errno() != ENOTSUP) return result;
    if (!result || !wanted) done.skipped_xattrs++;  // the host's filesystem has none
  }
  return {};
}

}  // namespace reprise::snapshot
