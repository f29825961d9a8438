#include "snapshot/rest_on_directory.h"

#include <map>

#include "base/host_tree.h"
#include "snapshot/entry_writer.h"

namespace reprise::snapshot {
namespace {

// Longer than a tick of the kernel, which is what its time stamps are made of.
constexpr int64_t kYoung_ns = 20'000'000;
constexpr int kLooksMax = 20;  // at a file that is changed all the time

int64_t nanoseconds_from(Timestamp from, Timestamp to) {
  int64_t seconds = to.sec - from.sec;
  if (seconds < -1 || seconds > 1) return seconds < 0 ? -kYoung_ns : kYoung_ns;  // far enough, either way
  return seconds * 1'000'000'000 + static_cast<int64_t>(to.nsec) - static_cast<int64_t>(from.nsec);
}

class RestingReader {
 public:
  RestingReader(HostTree& host, const std::shared_ptr<store::HostSource>& source, EntryWriter& out,
                Clock& clock, Rested& rested)
      : host_(host), source_(source), out_(out), clock_(clock), rested_(rested) {}

  Status run() {
    TRY(bring(".", {.name = ".", .entry = TRY(host_.stat("")), .target = {}, .has_xattrs = true}));
    std::vector<std::string> directories = {""};
    for (size_t i = 0; i < directories.size(); i++) {
      const std::string directory = directories[i];  // which may move as others are appended
      auto names = host_.scan(directory);
      if (!names && names.error().code() == Code::kNotFound) continue;
      if (!names && names.error().code() == Code::kPermission) {
        rested_.unreadable.push_back(directory);
        continue;
      }
      if (!names) return std::unexpected(names.error());
      for (HostName& name : *names) {
        std::string path = directory.empty() ? name.name : directory + "/" + name.name;
        TRY(bring(path, name));
        if (S_ISDIR(name.entry.mode)) directories.push_back(std::move(path));
      }
    }
    rested_.entries = TRY(out_.finish()).entries;
    return {};
  }

 private:
  Status bring(const std::string& path, HostName name) {
    HostEntry& entry = name.entry;
    if (S_ISREG(entry.mode)) TRY(let_age(path, entry));
    std::string hard_link;
    if (!S_ISDIR(entry.mode) && entry.nlink > 1) {
      auto [known, is_new] = links_.try_emplace({entry.device, entry.inode}, path);
      if (!is_new) hard_link = known->second;
    }
    ImportEntry made{.path = path,
                     .mode = entry.mode,
                     .uid = entry.uid,
                     .gid = entry.gid,
                     .rdev = entry.rdev,
                     .size = entry.size,
                     .mtime = entry.mtime,
                     .atime = entry.atime,
                     .ctime = entry.ctime,
                     .target = name.target,
                     .hard_link = hard_link,
                     .xattrs = {}};
    if (hard_link.empty() && name.has_xattrs) TRY(read_xattrs(path == "." ? "" : path, made.xattrs));
    if (TRY(out_.begin(made)) != EntryWriter::Begun::kFile) return {};
    if (entry.size > 0) {
      TRY(out_.rest_on(source_, store::HostSource::key_of(path, entry)));
      rested_.files++;
      rested_.bytes += entry.size;
    }
    return out_.end_file();
  }

  // Those that this user may not read are the host's affair.
  Status read_xattrs(const std::string& path, std::vector<std::pair<std::string, Bytes>>& into) {
    auto found = host_.xattrs(path);
    if (found) into = std::move(*found);
    const bool harmless =
        found || found.error().code() == Code::kPermission || found.error().code() == Code::kNotFound;
    return harmless ? Status{} : Status(std::unexpected(found.error()));
  }

  // Until a change that comes now would be given a later time of change.
  Status let_age(const std::string& path, HostEntry& entry) {
    for (int look = 0; look < kLooksMax; look++) {
      const int64_t age = nanoseconds_from(entry.ctime, clock_.realtime());
      if (age >= kYoung_ns || age <= -kYoung_ns) return {};
      clock_.sleep_ns(static_cast<uint64_t>(kYoung_ns));
      auto now = host_.stat(path);
      if (!now && now.error().code() == Code::kNotFound) return {};  // reading it will say so
      entry = TRY(std::move(now));
      if (!S_ISREG(entry.mode)) return fail(Code::kBusy, path + ": expected a file, found another one");
    }
    return {};
  }

  HostTree& host_;
  const std::shared_ptr<store::HostSource>& source_;
  EntryWriter& out_;
  Clock& clock_;
  Rested& rested_;
  std::map<std::pair<uint64_t, uint64_t>, std::string> links_;
};

}  // namespace

Result<Rested> rest_on_directory(const std::shared_ptr<store::HostSource>& source, Clock& clock,
                                 const ImportProgress& progress) {
  auto host = TRY(HostTree::open(source->path()));
  Rested rested{.head = fs::Head::create(Timestamp{}), .unreadable = {}};
  ImportOptions options = ImportOptions::everything();
  options.now = clock.realtime();
  EntryWriter out(rested.head, options, source->path(), EntryOrigin::kDirectory, progress);
  TRY(RestingReader(*host, source, out, clock, rested).run());
  return rested;
}

}  // namespace reprise::snapshot
