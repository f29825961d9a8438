#include "snapshot/apply_changes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <unordered_map>

#include "store/host_source.h"

namespace reprise::snapshot {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

std::string parent_of(const std::string& path) {
  size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

bool same_type(uint32_t a, uint32_t b) {
  return (a & S_IFMT) == (b & S_IFMT);
}

template <class T>
Result<T> answer(fs::Outcome<T> outcome, const std::string& path) {
  if (outcome) return std::move(*outcome);
  return fail(Code::kIo,
              fmt::format("{} in the overlay: {}", printable(path), fs::errno_text(outcome.error())));
}

}  // namespace

ChangesToApply::ChangesToApply(const fs::Tree& base, const fs::Tree& head, HostTree& host,
                               std::vector<ChangedPath> paths, const ExportOptions& options)
    : base_(base), head_(head), host_(host), options_(options) {
  for (ChangedPath& changed : paths) {
    std::string path = changed.path;
    places_.emplace(std::move(path), Place{.changed = std::move(changed), .staged = {}});
  }
}

size_t ChangesToApply::already() const {
  return static_cast<size_t>(
      std::ranges::count_if(places_, [](const auto& entry) { return entry.second.already; }));
}

bool ChangesToApply::is_directory(const std::optional<InodeId>& inode, const fs::Tree& tree) const {
  return inode && tree.stat(*inode)->is_directory();
}

bool ChangesToApply::becomes_directory(const std::string& path) const {
  auto found = places_.find(path);
  return found != places_.end() && is_directory(found->second.changed.after, head_);
}

// Is the file, or directory, that is there to stay, with other attributes?
bool ChangesToApply::in_place(const Place& place) const {
  const ChangedPath& changed = place.changed;
  if (!changed.before || !changed.after) return false;
  const fs::Attributes before = *base_.stat(*changed.before), after = *head_.stat(*changed.after);
  return same_type(before.mode, after.mode) &&
         (after.is_directory() || (after.is_regular() && !changed.content));
}

// --- what is there

Result<std::vector<Conflict>> ChangesToApply::check() {
  std::vector<Conflict> conflicts;
  for (auto& [path, place] : places_) TRY(check_place(place, conflicts));
  return conflicts;
}

Result<std::optional<HostEntry>> ChangesToApply::find(const std::string& path,
                                                      std::vector<Conflict>& conflicts) {
  auto found = host_.stat(path);
  if (found) return *found;
  if (found.error().code() == Code::kNotFound) return std::nullopt;
  const int error = found.error().sys_errno();
  if (error != ENOTDIR && error != ELOOP) return std::unexpected(found.error());
  // What lies in the way will be a directory.
  for (std::string above = parent_of(path); !above.empty(); above = parent_of(above))
    if (becomes_directory(above)) return std::nullopt;
  conflicts.push_back({printable(path), "what it lies in is no directory any more"});
  return std::nullopt;
}

Status ChangesToApply::check_place(Place& place, std::vector<Conflict>& conflicts) {
  const ChangedPath& changed = place.changed;
  place.already = false;
  const size_t had = conflicts.size();
  auto now = TRY(find(changed.path, conflicts));
  if (conflicts.size() > had) return {};
  auto conflict = [&](std::string why) -> Status {
    conflicts.push_back({printable(changed.path), std::move(why)});
    return {};
  };
  if (!now) {
    place.already = !changed.after;
    if (changed.before && changed.after) return conflict("changed in the overlay, deleted in the directory");
    return changed.after ? check_parent(place, conflicts) : Status{};
  }
  std::string difference = "added in the overlay and in the directory";
  if (changed.before) difference = TRY(difference_from_base(place, *now));
  if (difference.empty()) return {};
  // Both sides may have come to the same.
  place.already = changed.after && TRY(is_as_wanted(changed.path, *now, *changed.after));
  return place.already ? Status{} : conflict(std::move(difference));
}

Status ChangesToApply::check_parent(const Place& place, std::vector<Conflict>& conflicts) {
  const std::string parent = parent_of(place.changed.path);
  if (parent.empty() || becomes_directory(parent)) return {};
  auto there = TRY(find(parent, conflicts));
  if (there && S_ISDIR(there->mode)) return {};
  conflicts.push_back(
      {printable(place.changed.path), "added in the overlay; what it lies in is no directory any more"});
  return {};
}

Result<std::string> ChangesToApply::difference_from_base(const Place& place, const HostEntry& now) {
  const ChangedPath& changed = place.changed;
  const fs::Attributes was = *base_.stat(*changed.before);
  const std::string done = changed.after ? "changed in the overlay" : "deleted in the overlay";
  if (!same_type(was.mode, now.mode)) return done + ", another kind of file in the directory";
  if (was.is_regular()) {
    // Times of change tell more than contents could: these are nowhere but in the directory.
    const bool same = now.size == was.size && now.mtime == was.mtime && now.ctime == was.ctime;
    return same ? std::string{} : done + ", changed in the directory";
  }
  if (was.is_symlink()) {
    const bool same = TRY(host_.read_link(changed.path)) == *base_.read_link(was.inode);
    return same ? std::string{} : done + ", changed in the directory";
  }
  if (was.is_directory()) {
    if (!is_directory(changed.after, head_)) return TRY(strangers_in(changed.path));
    const bool same = (was.mode & 07777) == (now.mode & 07777) && was.uid == now.uid && was.gid == now.gid;
    return same ? std::string{} : done + ", given other permissions in the directory";
  }
  return now.rdev == was.rdev ? std::string{} : done + ", another device in the directory";
}

// A directory that goes has nothing in it but what goes, too.
Result<std::string> ChangesToApply::strangers_in(const std::string& directory) {
  for (const std::string& name : TRY(host_.list(directory))) {
    auto known = places_.find(fmt::format("{}/{}", directory, name));
    if (known == places_.end() || known->second.changed.after)
      return fmt::format("deleted in the overlay, has {} in the directory", printable(name));
  }
  return std::string{};
}

Result<bool> ChangesToApply::is_as_wanted(const std::string& path, const HostEntry& now, InodeId after) {
  const fs::Attributes wanted = *head_.stat(after);
  if (!same_type(wanted.mode, now.mode)) return false;
  if (wanted.is_symlink()) return TRY(host_.read_link(path)) == *head_.read_link(after);
  if ((wanted.mode & 07777) != (now.mode & 07777)) return false;
  if (wanted.is_directory()) return true;
  if (!wanted.is_regular()) return wanted.rdev == now.rdev;
  return wanted.size == now.size && TRY(same_bytes(path, after, wanted.size));
}

Result<bool> ChangesToApply::same_bytes(const std::string& path, InodeId file, uint64_t size) {
  auto there = TRY(host_.open_file(path));
  Bytes a(kChunkBytes), b(kChunkBytes);
  for (uint64_t offset = 0; offset < size; offset += kChunkBytes) {
    const size_t wanted = std::min<uint64_t>(kChunkBytes, size - offset);
    const size_t got = TRY(there->pread(ByteSpan(a).first(wanted), offset));
    // What cannot be read is not known to be the same.
    auto own = head_.read(file, offset, ByteSpan(b).first(wanted));
    if (got != wanted || !own || *own != wanted ||
        !std::equal(a.begin(), a.begin() + static_cast<ptrdiff_t>(wanted), b.begin()))
      return false;
  }
  return true;
}

// --- what is to be there

Result<std::vector<Conflict>> ChangesToApply::apply(Random& random) {
  std::vector<Conflict> conflicts = TRY(check());
  if (!conflicts.empty()) return conflicts;
  const std::string folder = fmt::format(".reprise-apply-{:08x}", static_cast<uint32_t>(random.next()));
  TRY(host_.make_directory(folder));
  auto bring = [&]() -> Status {
    TRY(stage(folder));
    TRY(host_.sync());
    conflicts = TRY(check());
    return conflicts.empty() ? put_in_place() : Status{};
  };
  Status brought = bring();
  Status removed = host_.remove_all(folder);
  TRY(std::move(brought));
  TRY(std::move(removed));
  TRY(host_.sync());
  return conflicts;
}

Result<ExportEntry> ChangesToApply::entry_of(InodeId inode, std::string path) const {
  ExportEntry entry{
      .path = std::move(path), .attributes = *head_.stat(inode), .target = {}, .hard_link = {}, .xattrs = {}};
  if (entry.attributes.is_symlink()) entry.target = TRY(answer(head_.read_link(inode), entry.path));
  CHECK(head_.list_xattrs(
      inode, [&](std::string_view name, ByteView value) { entry.xattrs.emplace_back(name, value); }));
  std::ranges::sort(entry.xattrs, {}, [](const auto& xattr) { return xattr.first; });
  return entry;
}

// Names of one file are links of one file there, too.
Status ChangesToApply::stage(const std::string& folder) {
  DirectoryWriter writer(head_, host_, folder, options_);
  std::unordered_map<InodeId, std::string> written;
  size_t number = 0;
  for (auto& [path, place] : places_) {
    const auto& after = place.changed.after;
    if (place.already || !after || is_directory(after, head_) || in_place(place)) continue;
    std::string name = std::to_string(number++);
    ExportEntry entry = TRY(entry_of(*after, name));
    auto [known, is_new] = written.try_emplace(*after, name);
    if (!is_new) entry.hard_link = known->second;
    auto added = writer.add(entry, done_);
    if (!added) return std::unexpected(added.error().with_context(printable(path)));
    place.staged = fmt::format("{}/{}", folder, name);
  }
  return {};
}

Status ChangesToApply::remove(const Place& place) {
  const std::string& path = place.changed.path;
  return is_directory(place.changed.before, base_) ? host_.remove_directory(path) : host_.remove_file(path);
}

Status ChangesToApply::put_in_place() {
  DirectoryWriter writer(head_, host_, "", options_);
  // What makes way for a file of another kind, and all below it; children first.
  auto makes_way = [&](const Place& place) {
    const ChangedPath& changed = place.changed;
    return !place.already && changed.before && changed.after &&
           is_directory(changed.before, base_) != is_directory(changed.after, head_);
  };
  auto lies_below_one = [&](const std::string& path) {
    for (std::string above = parent_of(path); !above.empty(); above = parent_of(above)) {
      auto found = places_.find(above);
      if (found != places_.end() && makes_way(found->second)) return true;
    }
    return false;
  };
  auto goes = [](const Place& place) { return !place.already && !place.changed.after; };
  for (auto it = places_.rbegin(); it != places_.rend(); ++it) {
    if (makes_way(it->second) || (goes(it->second) && lies_below_one(it->first))) TRY(remove(it->second));
  }
  for (auto& [path, place] : places_) {
    if (place.already || !place.changed.after || in_place(place)) continue;
    if (is_directory(place.changed.after, head_))
      TRY(host_.make_directory(path));
    else
      TRY(host_.rename(place.staged, path));
  }
  for (auto it = places_.rbegin(); it != places_.rend(); ++it) {
    if (goes(it->second) && !lies_below_one(it->first)) TRY(remove(it->second));
  }
  // Directories last and children first, once nothing in them changes any more.
  for (auto it = places_.rbegin(); it != places_.rend(); ++it) {
    const auto& after = it->second.changed.after;
    const bool wants = after && (is_directory(after, head_) || in_place(it->second));
    if (!wants || it->second.already) continue;
    ExportEntry entry = TRY(entry_of(*after, it->first));
    TRY(writer.set_attributes(it->first, entry, done_));
  }
  return {};
}

}  // namespace reprise::snapshot
