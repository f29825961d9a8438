#include "tests/posix/script.h"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/check.h"
#include "tests/posix/waivers.h"

namespace reprise::posix {
namespace {

std::string failed(const fs::Errno& error) {
  return name_of(static_cast<int>(error));
}
std::string shown(const Outcome<void>& outcome) {
  return outcome ? "ok" : failed(outcome.error());
}
template <class T>
std::string shown(const Outcome<T>& outcome) {
  if (!outcome) return failed(outcome.error());
  if constexpr (std::is_same_v<T, std::string>) {
    return "ok " + *outcome;
  } else {
    return "ok " + std::to_string(*outcome);
  }
}

// A time that a clock gave is the present; one that a call gave is itself.
std::string shown(const Timestamp& time) {
  bool present = time.sec > 1'500'000'000 && time.sec < 3'000'000'000;
  return present ? "now" : std::to_string(time.sec) + "." + std::to_string(time.nsec);
}

std::string shown(const Attributes& a) {
  char text[200];
  snprintf(text, sizeof text, "%o %u:%u links %u size %lu dev %lu", a.mode, a.uid, a.gid, a.nlink,
           a.is_directory() ? 0 : a.size, S_ISCHR(a.mode) || S_ISBLK(a.mode) ? a.rdev : 0);
  return std::string(text) + " a " + shown(a.atime) + " m " + shown(a.mtime);
}
std::string shown(const Outcome<Attributes>& outcome) {
  return outcome ? "ok " + shown(*outcome) : failed(outcome.error());
}
std::string shown(const Outcome<std::vector<DirectoryEntry>>& outcome) {
  if (!outcome) return failed(outcome.error());
  std::string names = "ok";
  for (const DirectoryEntry& entry : *outcome) names += " " + entry.name + ":" + std::to_string(entry.type);
  return names;
}

std::string sorted_names(const std::string& ended_by_nul) {
  std::vector<std::string> names;
  std::istringstream all(ended_by_nul);
  for (std::string name; std::getline(all, name, '\0');) names.push_back(name);
  std::ranges::sort(names);
  std::string text;
  for (const std::string& name : names) text += name + ",";
  return text;
}

// Long contents by their hash.
std::string brief(const std::string& bytes) {
  if (bytes.size() < 40) return bytes;
  return std::to_string(bytes.size()) + " bytes " + std::to_string(std::hash<std::string>{}(bytes)) + " " +
         bytes.substr(0, 8);
}

void times_of(int which, timespec (&times)[2]) {
  constexpr timespec kChoices[] = {{0, UTIME_NOW}, {0, UTIME_OMIT},      {5, 6},
                                   {-5, 999'999},  {4'200'000'000, 987}, {1, 1'000'000'000}};
  times[0] = kChoices[static_cast<size_t>(which) % 6];
  times[1] = kChoices[static_cast<size_t>(which) / 6 % 6];
}

// The same on whatever is tested (tests/posix/waivers.cc).
std::string not_compared(NotCompared what) {
  CHECK(std::ranges::find(silences(), what, &Silence::what) != silences().end());
  return "not compared";
}

}  // namespace

// What each call does. By name, so that a script's text says it.
struct Performances {
  Crew& crew;
  const Step& s;
  Calls& who;
  PathAt path;

  // --- by path
  std::string open() const {
    if (auto there = who.stat(path); there && S_ISFIFO(there->mode)) return not_compared(NotCompared::kFifo);
    auto fd = who.open(path, s.flags, s.mode & 07777);
    if (!fd) return failed(fd.error());
    keep(*fd);
    return "ok";
  }
  std::string stat() const { return shown(who.stat(path)); }
  std::string lstat() const { return shown(who.lstat(path)); }
  std::string access() const { return shown(who.access(path, s.flags)); }
  std::string mkdir() const { return shown(who.mkdir(path, s.mode)); }
  std::string mknod() const { return shown(who.mknod(path, s.mode, s.mode & S_IFCHR ? s.uid : 0)); }
  std::string unlink() const { return shown(who.unlink(path)); }
  std::string rmdir() const { return shown(who.rmdir(path)); }
  std::string rename() const { return shown(who.rename(path, s.to, static_cast<unsigned>(s.flags))); }
  std::string link() const { return shown(who.link(path, s.to, s.flags)); }
  std::string symlink() const { return shown(who.symlink(s.to, path)); }
  std::string readlink() const { return shown(who.readlink(path)); }
  std::string truncate() const {
    auto there = who.stat(s.path);
    if (there && there->is_regular() && s.offset >= 0 && there->size == static_cast<uint64_t>(s.offset))
      return not_compared(NotCompared::kSameSize);
    return shown(who.truncate(s.path, s.offset));
  }
  std::string chmod() const { return shown(who.chmod(path, s.mode)); }
  std::string chown() const { return shown(who.chown(path, s.uid, s.gid, s.flags)); }
  std::string utimens() const {
    timespec times[2];
    times_of(static_cast<int>(s.mode), times);
    return shown(who.utimens(path, s.mode == 36 ? nullptr : times, s.flags));
  }
  std::string list() const { return shown(who.list(path)); }
  std::string chdir() const { return shown(who.chdir(s.path)); }
  std::string getcwd() const { return shown(who.working_directory()); }
  std::string umask() const { return shown(Outcome<uint32_t>(who.set_umask(s.mode))); }
  std::string getxattr() const { return shown(who.get_xattr(s.path, s.name)); }
  std::string listxattr() const {
    auto names = who.list_xattrs(s.path);
    return names ? "ok " + sorted_names(*names) : failed(names.error());
  }
  std::string setxattr() const {
    return shown(who.set_xattr(s.path, s.name, s.to, static_cast<XattrMode>(s.flags)));
  }
  std::string removexattr() const { return shown(who.remove_xattr(s.path, s.name)); }

  // --- by handle
  int fd() const { return crew.handle(s.slot)->fd; }
  std::string close() const {
    int closed = fd();
    crew.handle(s.slot).reset();
    return shown(who.close(closed));
  }
  std::string dup() const {
    auto made = who.dup(fd());
    if (!made) return failed(made.error());
    Crew::Handle copy{crew.handle(s.slot)->caller, *made};
    auto& place = crew.handle(s.other);
    if (place) (void)crew.callers_[static_cast<size_t>(place->caller)]->close(place->fd);
    place = copy;
    return "ok";
  }
  std::string getfl() const { return shown(who.status_flags(fd())); }
  std::string setfl() const { return shown(who.set_status_flags(fd(), s.flags)); }
  std::string read() const {
    auto bytes = who.read(fd(), s.length);
    return bytes ? "ok " + brief(*bytes) : failed(bytes.error());
  }
  std::string pread() const {
    auto bytes = who.pread(fd(), s.length, s.offset);
    return bytes ? "ok " + brief(*bytes) : failed(bytes.error());
  }
  std::string write() const { return shown(who.write(fd(), std::string(s.length, s.fill))); }
  std::string pwrite() const { return shown(who.pwrite(fd(), std::string(s.length, s.fill), s.offset)); }
  // Where a file has holes is each filesystem's own.
  std::string seek() const {
    auto opened = who.fstat(fd());
    if (opened && opened->is_directory()) return not_compared(NotCompared::kPositions);
    auto sought = who.seek(fd(), s.offset, s.flags);
    bool by_holes = s.flags == SEEK_DATA || s.flags == SEEK_HOLE;
    if (!by_holes || !opened || s.offset < 0 || static_cast<uint64_t>(s.offset) >= opened->size)
      return shown(sought);
    return "somewhere " + name_of(who.seek(fd(), 0, SEEK_SET));
  }
  std::string ftruncate() const { return shown(who.ftruncate(fd(), s.offset)); }
  std::string fchmod() const { return shown(who.fchmod(fd(), s.mode)); }
  std::string fchown() const { return shown(who.fchown(fd(), s.uid, s.gid)); }
  std::string futimens() const {
    timespec times[2];
    times_of(static_cast<int>(s.mode), times);
    return shown(who.futimens(fd(), s.mode == 36 ? nullptr : times));
  }
  std::string fstat() const { return shown(who.fstat(fd())); }
  std::string fsync() const { return shown(who.fsync(fd())); }
  std::string fallocate() const {
    return shown(who.fallocate(fd(), s.flags, s.offset, static_cast<int64_t>(s.length)));
  }
  // Within its owner's handles. A negative offset stands for the descriptor's own position.
  std::string copy() const {
    const auto& target = crew.handle(s.other);
    if (!target || target->caller != crew.handle(s.slot)->caller) return "no handle";
    int64_t from = s.offset, to = s.to_offset;
    auto copied =
        who.copy_file_range(fd(), from < 0 ? nullptr : &from, target->fd, to < 0 ? nullptr : &to, s.length);
    return shown(copied) + " " + std::to_string(from) + " " + std::to_string(to);
  }
  std::string linkfd() const {
    auto opened = who.fstat(fd());
    if (s.caller != 0 && opened && opened->uid != crew.uids_[static_cast<size_t>(s.caller)])
      return not_compared(NotCompared::kForeignLink);
    return shown(who.link_descriptor(fd(), s.to));
  }
  std::string fchdir() const { return shown(who.fchdir(fd())); }
  // Whole, from the start: the order within is each filesystem's own.
  std::string readdir() const {
    auto rewound = who.seek(fd(), 0, SEEK_SET);
    auto some = who.read_directory(fd(), 1000);
    if (some) std::ranges::sort(*some, {}, &DirectoryEntry::name);
    return name_of(rewound) + " " + shown(some);
  }
  std::string fgetxattr() const { return shown(who.get_xattr({fd(), ""}, s.name)); }
  std::string fsetxattr() const {
    return shown(who.set_xattr({fd(), ""}, s.name, s.to, static_cast<XattrMode>(s.flags)));
  }
  std::string fremovexattr() const { return shown(who.remove_xattr({fd(), ""}, s.name)); }

 private:
  void keep(int opened) const {
    auto& place = crew.handle(s.slot);
    if (place) (void)crew.callers_[static_cast<size_t>(place->caller)]->close(place->fd);
    place = Crew::Handle{s.caller, opened};
  }
};

namespace {

struct Known {
  const char* name;
  bool by_handle;
  std::string (Performances::*perform)() const;
};

constexpr Known kCalls[] = {
    {"open", false, &Performances::open},
    {"stat", false, &Performances::stat},
    {"lstat", false, &Performances::lstat},
    {"access", false, &Performances::access},
    {"mkdir", false, &Performances::mkdir},
    {"mknod", false, &Performances::mknod},
    {"unlink", false, &Performances::unlink},
    {"rmdir", false, &Performances::rmdir},
    {"rename", false, &Performances::rename},
    {"link", false, &Performances::link},
    {"symlink", false, &Performances::symlink},
    {"readlink", false, &Performances::readlink},
    {"truncate", false, &Performances::truncate},
    {"chmod", false, &Performances::chmod},
    {"chown", false, &Performances::chown},
    {"utimens", false, &Performances::utimens},
    {"list", false, &Performances::list},
    {"chdir", false, &Performances::chdir},
    {"getcwd", false, &Performances::getcwd},
    {"umask", false, &Performances::umask},
    {"getxattr", false, &Performances::getxattr},
    {"listxattr", false, &Performances::listxattr},
    {"setxattr", false, &Performances::setxattr},
    {"removexattr", false, &Performances::removexattr},
    {"close", true, &Performances::close},
    {"dup", true, &Performances::dup},
    {"getfl", true, &Performances::getfl},
    {"setfl", true, &Performances::setfl},
    {"read", true, &Performances::read},
    {"pread", true, &Performances::pread},
    {"write", true, &Performances::write},
    {"pwrite", true, &Performances::pwrite},
    {"seek", true, &Performances::seek},
    {"ftruncate", true, &Performances::ftruncate},
    {"fchmod", true, &Performances::fchmod},
    {"fchown", true, &Performances::fchown},
    {"futimens", true, &Performances::futimens},
    {"fstat", true, &Performances::fstat},
    {"fsync", true, &Performances::fsync},
    {"fallocate", true, &Performances::fallocate},
    {"copy", true, &Performances::copy},
    {"linkfd", true, &Performances::linkfd},
    {"fchdir", true, &Performances::fchdir},
    {"readdir", true, &Performances::readdir},
    {"fgetxattr", true, &Performances::fgetxattr},
    {"fsetxattr", true, &Performances::fsetxattr},
    {"fremovexattr", true, &Performances::fremovexattr},
};

const Known* find_call(std::string_view name) {
  auto found =
      std::ranges::find(kCalls, name, [](const Known& known) { return std::string_view(known.name); });
  return found == std::end(kCalls) ? nullptr : found;
}

}  // namespace

Crew::Crew(std::vector<Member> members) {
  for (Member& member : members) {
    uids_.push_back(member.who.uid);
    callers_.push_back(std::move(member.calls));
  }
}

std::vector<std::string> Crew::call_names() {
  std::vector<std::string> names;
  for (const Known& known : kCalls) names.emplace_back(known.name);
  return names;
}

std::string Crew::perform(const Step& step) {
  const Known* known = find_call(step.call);
  if (known == nullptr || step.caller < 0 || static_cast<size_t>(step.caller) >= callers_.size())
    return "no such call or caller";
  Step mine = step;
  PathAt path(step.path);
  if (known->by_handle) {
    if (!handle(step.slot)) return "no handle";
    mine.caller = handle(step.slot)->caller;
  } else if (step.at >= 0 && handle(step.at)) {
    mine.caller = handle(step.at)->caller;
    path = PathAt(handle(step.at)->fd, step.path);
  }
  Performances performances{*this, mine, *callers_[static_cast<size_t>(mine.caller)], path};
  return (performances.*known->perform)();
}

std::map<std::string, std::string> Crew::tree() {
  std::map<std::string, std::string> found;
  std::map<uint64_t, std::string> first_names;
  auto top = callers_[0]->stat("/");
  found["/"] = shown(top);
  describe_below("", found, first_names);
  return found;
}

void Crew::describe_below(const std::string& path, std::map<std::string, std::string>& found,
                          std::map<uint64_t, std::string>& first_names) {
  Calls& root = *callers_[0];
  auto entries = root.list(path + "/");
  if (!entries) {
    found[path] += " unreadable " + failed(entries.error());
    return;
  }
  for (const DirectoryEntry& entry : *entries) {
    std::string name = path + "/" + entry.name;
    auto a = root.lstat(name);
    std::string text = shown(a);
    if (!a) continue;
    if (a->is_regular()) {
      auto fd = root.open(name, O_RDONLY);
      constexpr size_t kShown = 128 << 10;
      auto start = fd ? root.pread(*fd, kShown, 0) : Outcome<std::string>(std::unexpected(fd.error()));
      text += " bytes " + (start ? brief(*start) : failed(start.error()));
      if (fd) (void)root.close(*fd);
    }
    if (a->is_symlink()) text += " to " + shown(root.readlink(name));
    if (!a->is_directory()) text += " is " + first_names.try_emplace(a->inode.value, name).first->second;
    auto names = root.list_xattrs(name);
    if (names && !names->empty()) text += " xattrs " + sorted_names(*names);
    found[name] = text;
    if (a->is_directory()) describe_below(name, found, first_names);
  }
}

// --- the text

namespace {

std::string encoded(const std::string& text) {
  std::string out;
  for (unsigned char c : text) {
    if (std::isalnum(c) || std::string_view("/._-,").find(static_cast<char>(c)) != std::string_view::npos) {
      out += static_cast<char>(c);
    } else {
      char hex[4];
      snprintf(hex, sizeof hex, "%%%02x", c);
      out += hex;
    }
  }
  return out;
}

std::string decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(&text[i + 1], &text[i + 3], value, 16).ptr == &text[i + 3]) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// Calls visit(key, field) for each field, in the order in which the text has them.
template <class AnyStep, class Visit>
void for_each_field(AnyStep& s, const Visit& visit) {
  visit("slot", s.slot);
  visit("other", s.other);
  visit("at", s.at);
  visit("path", s.path);
  visit("to", s.to);
  visit("name", s.name);
  visit("flags", s.flags);
  visit("mode", s.mode);
  visit("uid", s.uid);
  visit("gid", s.gid);
  visit("offset", s.offset);
  visit("to_offset", s.to_offset);
  visit("length", s.length);
  visit("fill", s.fill);
}

bool is_octal(std::string_view key) {
  return key == "flags" || key == "mode";
}

template <class T>
std::string field_text(std::string_view key, const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return encoded(value);
  } else if constexpr (std::is_same_v<T, char>) {
    return encoded(std::string(1, value));
  } else {
    char text[32];
    snprintf(text, sizeof text, is_octal(key) ? "%lo" : "%ld", static_cast<long>(value));
    return is_octal(key) ? std::string("0") + text : text;
  }
}

template <class T>
bool parse_field(std::string_view key, std::string_view text, T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    value = decoded(text);
    return true;
  } else if constexpr (std::is_same_v<T, char>) {
    value = (decoded(text) + '\0')[0];
    return true;
  } else {
    long number = 0;
    auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), number, is_octal(key) ? 8 : 10);
    value = static_cast<T>(number);
    return error == std::errc() && end == text.data() + text.size();
  }
}

std::optional<Step> parse_step(const std::string& line) {
  std::istringstream words(line);
  Step step;
  if (!(words >> step.caller >> step.call) || find_call(step.call) == nullptr) return std::nullopt;
  for (std::string word; words >> word;) {
    size_t equals = word.find('=');
    if (equals == std::string::npos) return std::nullopt;
    std::string key = word.substr(0, equals), text = word.substr(equals + 1);
    bool taken = false;
    for_each_field(step, [&](std::string_view name, auto& field) {
      if (name == key) taken = parse_field(key, text, field);
    });
    if (!taken) return std::nullopt;
  }
  return step;
}

}  // namespace

std::string to_text(const Step& step) {
  std::string line = std::to_string(step.caller) + " " + step.call;
  const Step defaults;
  std::vector<std::string> usual;
  for_each_field(defaults,
                 [&](std::string_view key, const auto& value) { usual.push_back(field_text(key, value)); });
  size_t index = 0;
  for_each_field(step, [&](std::string_view key, const auto& value) {
    std::string text = field_text(key, value);
    if (text != usual[index++]) line += " " + std::string(key) + "=" + text;
  });
  return line;
}

std::string to_text(const Script& script) {
  std::string text;
  for (const Step& step : script) text += to_text(step) + "\n";
  return text;
}

std::optional<Script> parse_script(std::string_view text) {
  Script script;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    auto step = parse_step(line);
    if (!step) return std::nullopt;
    script.push_back(*step);
  }
  return script;
}

}  // namespace reprise::posix
