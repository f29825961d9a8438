#include "snapshot/entry_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>

#include "base/hash.h"

namespace reprise::snapshot {
namespace {

constexpr size_t kWriteMax = 1 << 20;
constexpr uint64_t kUnratedBytes = 64 << 20;  // so much a small archive may always become
constexpr uint64_t kZerosPerByte = 11;        // ImportLimits::ratio

bool is_separator(char c) {
  return c == '/' || c == '\\';
}

// Does some system that parts names by '\', too, find ".." in it?
bool holds_dot_dot(std::string_view path) {
  for (size_t begin = 0; begin <= path.size();) {
    size_t end = std::min(path.find_first_of("/\\", begin), path.size());
    if (path.substr(begin, end - begin) == "..") return true;
    begin = end + 1;
  }
  return false;
}

bool is_zero(ByteView bytes) {
  return bytes.empty() ||
         (bytes[0] == std::byte{} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

std::string lower_case(std::string_view name) {
  std::string folded(name);
  for (char& c : folded) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return folded;
}

std::string join(std::string_view directory, std::string_view name) {
  return directory.empty() ? std::string(name) : fmt::format("{}/{}", directory, name);
}

}  // namespace

EntryWriter::EntryWriter(fs::Head& head, const ImportOptions& options, std::string archive,
                         EntryOrigin origin, const ImportProgress& progress)
    : head_(head),
      options_(options),
      archive_(std::move(archive)),
      origin_(origin),
      progress_(progress),
      first_(kRootInode.value + 1) {
  // Ids that origins mint are above these.
  if (head_.usage().inodes > 1) {
    head_.for_each_inode([&](const fs::Attributes& attributes) {
      if (attributes.inode.prefix() == 0) first_ = std::max(first_, attributes.inode.value + 1);
    });
  }
  next_ = first_;
}

std::unexpected<Error> EntryWriter::refuse(std::string_view path, std::string_view why, Code code) const {
  return fail(code, fmt::format("{}: entry {}: {}", printable(archive_), printable(path), why));
}

Status EntryWriter::apply(std::string_view path, const fs::Operation& operation) {
  auto done = head_.apply(operation);
  if (done) return {};
  return refuse(path,
                fmt::format("no tree can hold this ({}: {})", fs::operation_name(operation),
                            fs::errno_text(done.error())),
                Code::kUnsupported);
}

// --- names

Result<std::vector<std::string_view>> EntryWriter::parts_of(std::string_view path) const {
  if (path.empty()) return refuse(path, "expected a name, found none");
  if (path.find('\0') != std::string_view::npos) return refuse(path, "expected a name, found a NUL in it");
  if (path[0] == '/') return refuse(path, "expected a relative name, found an absolute one");
  if (origin_ != EntryOrigin::kDirectory) TRY(check_portable(path));
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin < path.size();) {
    size_t end = std::min(path.find('/', begin), path.size());
    std::string_view part = path.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") return refuse(path, "expected a name that stays inside, found \"..\" in it");
    if (part.size() > fs::kNameMax) {
      return refuse(path, fmt::format("expected names of at most {} bytes, found one of {}", fs::kNameMax,
                                      part.size()));
    }
    parts.push_back(part);
    if (limits().depth != 0 && parts.size() > limits().depth)
      return refuse(path, fmt::format("expected a depth of at most {} (--max-depth)", limits().depth));
  }
  if (path.size() > fs::kPathMax)
    return refuse(path, fmt::format("expected at most {} bytes, found {}", fs::kPathMax, path.size()));
  return parts;
}

// What other systems would take for a way out.
Status EntryWriter::check_portable(std::string_view path) const {
  if (path[0] == '\\') return refuse(path, "expected a relative name, found one that is absolute elsewhere");
  bool letter = std::isalpha(static_cast<unsigned char>(path[0])) != 0;
  if (letter && path.size() > 1 && path[1] == ':' && (path.size() == 2 || is_separator(path[2])))
    return refuse(path, "expected a relative name, found one with a drive letter");
  if (holds_dot_dot(path)) return refuse(path, "expected a name that stays inside, found \"..\" in it");
  return {};
}

// The directory of this name in another; made if it is missing.
Result<InodeId> EntryWriter::enter(InodeId directory, std::string_view name, std::string_view path,
                                   bool make) {
  auto found = head_.lookup(directory, name);
  if (found) {
    if (found->type == fs::type_of_mode(S_IFDIR)) return found->inode;
    return refuse(path,
                  fmt::format("expected a directory at {}, found {}", printable(name),
                              found->type == fs::type_of_mode(S_IFLNK) ? "a symlink, which is not followed"
                                                                       : "another file"));
  }
  if (!make) return refuse(path, fmt::format("there is no directory {}", printable(name)));
  InodeId inode{next_++};
  TRY(count_name(directory, name, path));
  TRY(apply(path, fs::Create{.parent = directory,
                             .name = name,
                             .inode = inode,
                             .mode = S_IFDIR | 0755,
                             .target = {},
                             .time = options_.now}));
  return inode;
}

Status EntryWriter::find_top() {
  if (top_) return {};
  InodeId at = kRootInode;
  std::string_view into = options_.into;
  while (into.starts_with('/')) into.remove_prefix(1);
  if (!into.empty()) {
    for (std::string_view part : TRY(parts_of(into))) at = TRY(enter(at, part, into, true));
  }
  top_ = cached_inode_ = at;
  return {};
}

Result<EntryWriter::Place> EntryWriter::place_of(std::string_view path, bool make_parents) {
  std::vector<std::string_view> parts = TRY(parts_of(path));
  TRY(find_top());
  if (parts.empty()) return Place{top_, "", ""};
  std::string directory;
  for (size_t i = 0; i + 1 < parts.size(); i++) directory = join(directory, parts[i]);
  if (directory != cached_path_) {
    InodeId at = top_;
    for (size_t i = 0; i + 1 < parts.size(); i++) at = TRY(enter(at, parts[i], path, make_parents));
    cached_path_ = directory;
    cached_inode_ = at;
  }
  return Place{cached_inode_, std::string(parts.back()), join(directory, parts.back())};
}

Status EntryWriter::count_name(InodeId parent, std::string_view name, std::string_view path) {
  if (limits().entries != 0 && done_.entries >= limits().entries) {
    return refuse(path,
                  fmt::format("expected at most {} entries, found more (--max-entries)", limits().entries),
                  Code::kNoSpace);
  }
  done_.entries++;
  // Not as the seed: hashes of short names under seeds that are near each other may be equal.
  std::string folded = lower_case(name);
  folded.append(reinterpret_cast<const char*>(&parent.value), sizeof parent.value);
  if (!folded_.insert(hash64(as_bytes(folded))).second) {
    if (done_.case_collisions++ == 0) done_.first_case_collision = printable(path);
  }
  return {};
}

// What is there under this name goes.
Status EntryWriter::clear_place(const Place& place) {
  auto found = head_.lookup(place.parent, place.name);
  if (!found) return count_name(place.parent, place.name, place.path);
  if (found->type == fs::type_of_mode(S_IFDIR))
    return refuse(place.path,
                  "expected no directory of this name, found one: nothing but one takes its place");
  if (made_here(found->inode)) {
    if (origin_ != EntryOrigin::kTar) return refuse(place.path, "expected each name once, found it again");
    if (done_.duplicates++ == 0) done_.first_duplicate = printable(place.path);
  } else {
    done_.replaced++;
    TRY(count_name(place.parent, place.name, place.path));
  }
  TRY(apply(place.path, fs::Unlink{place.parent, place.name, found->inode, options_.now}));
  while (auto unlinked = head_.take_one_unlinked()) head_.remove_unlinked(*unlinked);
  return {};
}

// --- entries

Result<EntryWriter::Begun> EntryWriter::begin(const ImportEntry& entry) {
  Place place = TRY(place_of(entry.path, true));
  if (S_ISDIR(entry.mode) && entry.hard_link.empty()) return begin_directory(place, entry);
  if (place.name.empty()) return refuse(entry.path, "expected a name for a file, found a directory's");
  skipped_.erase(place.path);
  if (!entry.hard_link.empty()) return begin_link(place, entry);
  if ((S_ISCHR(entry.mode) || S_ISBLK(entry.mode)) && !options_.devices) {
    done_.skipped_devices++;
    skipped_.insert(place.path);
    return Begun::kSkipped;
  }
  if (S_ISLNK(entry.mode)) {
    bool sound = !entry.target.empty() && entry.target.size() <= fs::kPathMax &&
                 entry.target.find('\0') == std::string_view::npos;
    if (!sound) return refuse(entry.path, "expected a symlink's target, found none that could be one");
  }
  if (S_ISREG(entry.mode)) {
    uint64_t most =
        limits().file_bytes != 0 ? std::min(limits().file_bytes, fs::kFileSizeMax) : fs::kFileSizeMax;
    if (entry.size > most) {
      return refuse(entry.path,
                    fmt::format("expected a file of at most {} bytes, found one of {} (--max-file-size)",
                                most, entry.size),
                    Code::kNoSpace);
    }
  }
  TRY(clear_place(place));
  InodeId inode{next_++};
  TRY(create(place, inode, entry));
  if (S_ISREG(entry.mode)) {
    file_ = {inode, entry.size, attributes_of(inode, entry), std::string(entry.path), entry.xattrs};
    return Begun::kFile;
  }
  TRY(set_xattrs(inode, entry.xattrs, entry.path));
  TRY(apply(entry.path, attributes_of(inode, entry)));
  if (progress_) progress_(done_);
  return Begun::kDone;
}

Status EntryWriter::create(const Place& place, InodeId inode, const ImportEntry& entry) {
  return apply(entry.path, fs::Create{.parent = place.parent,
                                      .name = place.name,
                                      .inode = inode,
                                      .mode = entry.mode & (S_IFMT | 0777),
                                      .uid = entry.uid,
                                      .gid = entry.gid,
                                      .rdev = S_ISCHR(entry.mode) || S_ISBLK(entry.mode) ? entry.rdev : 0,
                                      .target = S_ISLNK(entry.mode) ? entry.target : std::string_view(),
                                      .time = options_.now});
}

Result<EntryWriter::Begun> EntryWriter::begin_directory(const Place& place, const ImportEntry& entry) {
  InodeId inode = top_;
  if (!place.name.empty()) {
    auto found = head_.lookup(place.parent, place.name);
    if (found && found->type != fs::type_of_mode(S_IFDIR))
      return refuse(entry.path, "expected a directory or nothing of this name, found another file");
    inode = found ? found->inode : InodeId{next_++};
    if (!found) {
      TRY(count_name(place.parent, place.name, entry.path));
      TRY(create(place, inode, entry));
    }
  }
  TRY(set_xattrs(inode, entry.xattrs, entry.path));
  directories_[inode] = attributes_of(inode, entry);
  if (progress_) progress_(done_);
  return Begun::kDone;
}

Result<EntryWriter::Begun> EntryWriter::begin_link(const Place& place, const ImportEntry& entry) {
  Place target = TRY(place_of(entry.hard_link, false));
  if (skipped_.contains(target.path)) {
    skipped_.insert(place.path);
    return Begun::kSkipped;
  }
  auto found = head_.lookup(target.parent, target.name);
  if (!found || !made_here(found->inode) || found->type == fs::type_of_mode(S_IFDIR)) {
    return refuse(entry.path, fmt::format("expected a link to an earlier entry, found one to {}",
                                          printable(entry.hard_link)));
  }
  InodeId inode = found->inode;
  if (target.path == place.path) return Begun::kDone;
  TRY(clear_place(place));
  TRY(apply(entry.path, fs::Link{place.parent, place.name, inode, options_.now}));
  // Of this inode the times were set before, and a new name changes but one.
  if (entry.ctime)
    TRY(apply(entry.path,
              fs::SetAttributes{.inode = inode, .mask = fs::SetAttributes::kCtime, .ctime = *entry.ctime}));
  if (progress_) progress_(done_);
  return Begun::kDone;
}

fs::SetAttributes EntryWriter::attributes_of(InodeId inode, const ImportEntry& entry) {
  using Set = fs::SetAttributes;
  uint32_t mode = entry.mode & 07777;
  if (!options_.set_ids && (mode & 06000) != 0) {
    mode &= 01777;
    done_.skipped_set_ids++;
  }
  Timestamp mtime = entry.mtime.value_or(options_.now);
  return {.inode = inode,
          .mask = Set::kMode | Set::kUid | Set::kGid | Set::kAtime | Set::kMtime | Set::kCtime,
          .mode = mode,
          .uid = entry.uid,
          .gid = entry.gid,
          .atime = entry.atime.value_or(mtime),
          .mtime = mtime,
          .ctime = entry.ctime.value_or(options_.now)};
}

Status EntryWriter::set_xattrs(InodeId inode, const std::vector<std::pair<std::string, Bytes>>& xattrs,
                               std::string_view path) {
  for (const auto& [name, value] : xattrs) {
    bool tame = name.starts_with("user.") || name.starts_with("system.posix_acl_");
    bool asked_for = options_.all_xattrs && (name.starts_with("security.") || name.starts_with("trusted."));
    if (!tame && !asked_for) {
      done_.skipped_xattrs++;
      continue;
    }
    bool sound = name.size() <= fs::kXattrNameMax && name.find('\0') == std::string::npos &&
                 value.size() <= fs::kXattrValueMax;
    if (!sound) {
      return refuse(path,
                    fmt::format("expected an extended attribute as Linux has them, found {} of {} bytes",
                                printable(name.substr(0, 300)), value.size()));
    }
    TRY(apply(path, fs::SetXattr{inode, name, value, options_.now}));
  }
  return {};
}

// --- bytes of a file

Status EntryWriter::check_unpacked(std::string_view path) const {
  if (limits().unpacked_bytes != 0 && unpacked_bytes_ > limits().unpacked_bytes) {
    return refuse(path,
                  fmt::format("expected at most {} to unpack, found more (--max-size)",
                              format_bytes(limits().unpacked_bytes)),
                  Code::kNoSpace);
  }
  if (limits().bytes != 0 && done_.bytes > limits().bytes) {
    return refuse(
        path,
        fmt::format("expected at most {} of files, found more (--max-size)", format_bytes(limits().bytes)),
        Code::kNoSpace);
  }
  if (limits().ratio == 0 || !archive_bytes_) return {};
  auto beyond = [&](uint64_t bytes, uint64_t ratio) {
    return bytes > kUnratedBytes && bytes / ratio > *archive_bytes_;
  };
  if (!beyond(done_.bytes, limits().ratio) && !beyond(unpacked_bytes_, limits().ratio * kZerosPerByte))
    return {};
  return refuse(path,
                fmt::format("expected at most {} bytes for each of the archive, found more (--max-ratio)",
                            limits().ratio),
                Code::kNoSpace);
}

Status EntryWriter::write(uint64_t offset, ByteView bytes) {
  if (offset > file_.size || bytes.size() > file_.size - offset)
    return refuse(file_.path, fmt::format("expected {} bytes, found more", file_.size));
  unpacked_bytes_ += bytes.size();
  TRY(check_unpacked(file_.path));
  // Runs of blocks that are not zero.
  std::optional<uint64_t> run;
  for (size_t at = 0; at < bytes.size();) {
    size_t size = std::min<uint64_t>(bytes.size() - at, fs::kBlockSize - (offset + at) % fs::kBlockSize);
    bool zero = is_zero(bytes.subspan(at, size));
    if (run && (zero || at - *run >= kWriteMax)) {
      TRY(write_run(offset + *run, bytes.subspan(*run, at - *run)));
      run.reset();
    }
    if (!zero && !run) run = at;
    at += size;
  }
  if (run) TRY(write_run(offset + *run, bytes.subspan(*run)));
  return {};
}

Status EntryWriter::write_run(uint64_t offset, ByteView bytes) {
  done_.bytes += bytes.size();
  TRY(check_unpacked(file_.path));
  return apply(file_.path, fs::Write{file_.inode, offset, bytes, options_.now});
}

Status EntryWriter::rest_on(std::shared_ptr<fs::Source> source, ByteView key) {
  if (file_.size == 0) return {};
  auto done = head_.rest_on(file_.inode, std::move(source), file_.size, key);
  if (done) return {};
  return refuse(file_.path, fmt::format("no tree can hold this: {}", fs::errno_text(done.error())),
                Code::kUnsupported);
}

Status EntryWriter::end_file() {
  TRY(apply(file_.path, fs::Truncate{file_.inode, file_.size, options_.now}));
  TRY(set_xattrs(file_.inode, file_.xattrs, file_.path));
  TRY(apply(file_.path, file_.attributes));
  if (progress_) progress_(done_);
  return {};
}

Result<Imported> EntryWriter::finish() {
  TRY(find_top());
  for (const auto& [inode, attributes] : directories_) TRY(apply("", attributes));
  return done_;
}

}  // namespace reprise::snapshot
