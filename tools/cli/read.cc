// digest, ls, cat: what a state holds.
#include <fmt/format.h>

#include "fs/guest.h"
#include "snapshot/export.h"
#include "tools/cli/command.h"
#include "tools/cli/outside.h"
#include "tools/cli/progress.h"
#include "tools/cli/target.h"

namespace reprise::cli {
namespace {

struct Reading {
  std::string what;
  bool json = false;
  bool content = false;
  bool long_form = false;
};

Result<int> print_digest(const nlohmann::json& json, const Reading& options) {
  if (options.json) {
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print("{}\n", json[options.content ? "content" : "digest"].get<std::string>());
  }
  return kDone;
}

Result<int> digest(const Reading& options) {
  const std::string& what = options.what;
  Outside outside = Outside::parse(what);
  // Without --content a file is not meant as an archive.
  if (outside.kind == Outside::Kind::kDirectory || (outside && options.content)) {
    if (!options.content) {
      return fail(Code::kInvalidArgument,
                  fmt::format("{} is a directory: it has only a content digest; add --content", what));
    }
    Digest128 content = outside.kind == Outside::Kind::kDirectory
                            ? TRY(snapshot::content_digest_of_directory(outside.path))
                            : fs::content_digest(TRY(outside.read())).value();
    return print_digest({{"content", content.to_string()}}, options);
  }
  Target target = Target::parse(what);
  OpenTarget open = TRY(open_target(target));
  if (open.live && open.may_ask && target.position.empty())
    return print_digest(TRY(ask_live(open, {{"ask", "digest"}})), options);

  Progress progress("replaying");
  instance::State state = TRY(open.state(std::ref(progress)));
  Digest128 recomputed = state.head.recompute_digest();
  if (recomputed != state.position.digest) {
    return fail(Code::kCorrupt,
                fmt::format("{}: the digest kept is {}, counted again from the bytes it is {}", what,
                            state.position.digest.to_string(), recomputed.to_string()));
  }
  auto content = fs::content_digest(state.head);
  std::string token = TRY(instance::token_of(*open.store, open.target.branch, state));
  return print_digest({{"digest", recomputed.to_string()},
                       {"content", content->to_string()},
                       {"position", token},
                       {"log_index", state.log_index}},
                      options);
}

std::unexpected<Error> failed(const Target& target, fs::Errno error) {
  return fail(static_cast<int>(error) == ENOENT ? Code::kNotFound : Code::kIo,
              fmt::format("{}:{}: {}", target.store, printable(target.path), fs::errno_text(error)));
}

// The state as a read-only filesystem, and a guest to walk its paths. No more of it is read than is touched;
// where that cannot be had, read_whole() may have it still.
class Opened {
 public:
  static Result<Opened> open(const std::string& what) {
    Opened opened;
    opened.target = Target::parse(what);
    if (opened.target.path.empty()) opened.target.path = "/";
    opened.store_ = TRY(open_target(opened.target));
    TRY(opened.read(OpenTarget::Read::kAsTouched));
    return opened;
  }
  // False if all of it has been read already.
  Result<bool> read_whole() {
    if (whole_) return false;
    TRY(read(OpenTarget::Read::kWhole));
    return true;
  }

  Target target;
  std::unique_ptr<fs::Filesystem> filesystem;
  std::unique_ptr<fs::Guest> guest;

 private:
  Status read(OpenTarget::Read how) {
    Progress progress("replaying");
    instance::State state = TRY(store_.state(std::ref(progress), how));
    whole_ = !state.head.partial();
    store_.target.position = std::to_string(state.log_index);  // the same again, however far it has gone on
    guest.reset();
    filesystem = std::make_unique<fs::Filesystem>(std::move(state.head), system_clock(), *ids_);
    filesystem->set_read_only(true);
    guest = std::make_unique<fs::Guest>(*filesystem);
    return {};
  }

  OpenTarget store_;
  std::unique_ptr<fs::InodeIdSource> ids_ = fs::local_inode_ids();
  bool whole_ = false;
};

char type_letter(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return 'd';
    case S_IFLNK:
      return 'l';
    case S_IFIFO:
      return 'p';
    case S_IFSOCK:
      return 's';
    case S_IFCHR:
      return 'c';
    case S_IFBLK:
      return 'b';
    default:
      return '-';
  }
}

std::string mode_text(uint32_t mode) {
  std::string text(1, type_letter(mode));
  for (int shift = 6; shift >= 0; shift -= 3) {
    uint32_t bits = mode >> shift;
    text += (bits & 4) != 0 ? 'r' : '-';
    text += (bits & 2) != 0 ? 'w' : '-';
    bool special = (mode & (shift == 6 ? S_ISUID : shift == 3 ? S_ISGID : S_ISVTX)) != 0;
    char letter = shift == 0 ? 't' : 's';
    text += !special          ? ((bits & 1) != 0 ? 'x' : '-')
            : (bits & 1) != 0 ? letter
                              : static_cast<char>(letter - 'a' + 'A');
  }
  return text;
}

struct Entry {
  std::string name;
  fs::Attributes attributes;
  std::string link;  // of a symlink, what it leads to
};

void print_entry(const Entry& entry, const Reading& options) {
  const fs::Attributes& a = entry.attributes;
  if (options.json) {
    nlohmann::json json = {{"name", printable(entry.name)},
                           {"inode", a.inode.value},
                           {"mode", a.mode},
                           {"uid", a.uid},
                           {"gid", a.gid},
                           {"nlink", a.nlink},
                           {"size", a.size},
                           {"mtime", a.mtime.sec}};
    fmt::print("{}\n", json.dump());
    return;
  }
  if (!options.long_form) {
    fmt::print("{}\n", printable(entry.name));
    return;
  }
  time_t seconds = a.mtime.sec;
  tm utc{};
  gmtime_r(&seconds, &utc);
  char when[64];
  std::strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &utc);
  std::string link = a.is_symlink() ? " -> " + printable(entry.link) : "";
  fmt::print("{} {:3} {:5} {:5} {:10} {} {}{}\n", mode_text(a.mode), a.nlink, a.uid, a.gid, a.size, when,
             printable(entry.name), link);
}

// What `ls` shows: what is in a directory, by name, or the one entry itself; with what links
// lead to, if that is asked for.
fs::Outcome<std::vector<Entry>> entries_of(const Opened& opened, bool links) {
  std::vector<Entry> entries;
  const fs::Attributes top = TRY(opened.guest->lstat(opened.target.path));
  if (top.is_directory()) {
    TRY(opened.filesystem->read_directory({}, top.inode, 0, true,
                                          [&](const fs::Dentry& dentry, const fs::Attributes* a) {
                                            if (dentry.name != "." && dentry.name != "..")
                                              entries.push_back({std::string(dentry.name), *a, {}});
                                            return true;
                                          }));
    std::ranges::sort(entries, {}, &Entry::name);
  } else {
    entries.push_back({opened.target.path, top, {}});
  }
  for (Entry& entry : entries)
    if (links && entry.attributes.is_symlink())
      entry.link = TRY(opened.filesystem->read_link(entry.attributes.inode));
  return entries;
}

Result<int> ls(const Reading& options) {
  Opened opened = TRY(Opened::open(options.what));
  const bool links = options.long_form;
  auto entries = entries_of(opened, links);
  if (!entries && entries.error() == fs::Errno{EIO} && TRY(opened.read_whole()))
    entries = entries_of(opened, links);
  if (!entries) return failed(opened.target, entries.error());
  for (const Entry& entry : *entries) print_entry(entry, options);
  return kDone;
}

// Up to a buffer full, from `offset` on.
fs::Outcome<size_t> read_at(const Opened& opened, uint64_t offset, std::span<std::byte> buffer) {
  const fs::Attributes file = TRY(opened.guest->stat(opened.target.path));
  return opened.filesystem->read(file.inode, offset, buffer);
}

Result<int> cat(const Reading& options) {
  Opened opened = TRY(Opened::open(options.what));
  Bytes buffer(1 << 20);
  for (uint64_t offset = 0;;) {
    auto n = read_at(opened, offset, buffer);
    if (!n && n.error() == fs::Errno{EIO} && TRY(opened.read_whole())) n = read_at(opened, offset, buffer);
    if (!n) return failed(opened.target, n.error());
    if (*n == 0) return kDone;
    if (std::fwrite(buffer.data(), 1, *n, stdout) != *n)
      return std::unexpected(Error::from_errno(errno, "standard output"));
    offset += *n;
  }
}

}  // namespace

void add_digest(Command& reprise) {
  auto options = std::make_shared<Reading>();
  Command command = reprise.subcommand(
      "digest", "Print the digest of a state, a directory or an archive, counted from its bytes");
  command.required("state", options->what, "STATE, or with --content a directory, a ZIP or a tar");
  command.flag("--content", options->content,
               "the content digest: paths, types, modes, bytes; comparable with directories");
  command.flag("--json", options->json, "both digests and the position, as JSON");
  command.does([options] { return digest(*options); });
}

void add_ls(Command& reprise) {
  auto options = std::make_shared<Reading>();
  Command command = reprise.subcommand("ls", "List a directory of a state");
  command.required("state", options->what, "STATE[:/PATH]");
  command.flag("-l,--long", options->long_form, "modes, owners, sizes and times (UTC)");
  command.flag("--json", options->json, "one JSON object a line");
  command.does([options] { return ls(*options); });
}

void add_cat(Command& reprise) {
  auto options = std::make_shared<Reading>();
  Command command = reprise.subcommand("cat", "Print a file of a state");
  command.required("state", options->what, "STATE:/PATH");
  command.does([options] { return cat(*options); });
}

}  // namespace reprise::cli
