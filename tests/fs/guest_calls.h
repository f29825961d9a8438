// Puts calls to guests: one for each actor, all in one filesystem, with handles they share.
#pragma once

#include <optional>

#include "fs/guest.h"
#include "tests/fs/calls.h"
#include "tests/fs/recording.h"

namespace reprise::fs {

struct Credentials {
  uint32_t uid, gid;
  std::vector<uint32_t> groups;
};

class GuestCallee final : public Callee {
 public:
  // Calls come from the bottom of /n/n/n, whose directories everybody may write.
  explicit GuestCallee(const std::vector<Credentials>& actors, bool trusted) {
    Guest root(world.filesystem, {.umask = 0});
    for (const char* path : {"/n", "/n/n", "/n/n/n"}) {
      CHECK(root.mkdir(path, 0777));
      CHECK(root.chown(path, actors[0].uid, actors[0].gid));
    }
    for (const Credentials& who : actors) {
      GuestOptions options{
          .uid = who.uid, .gid = who.gid, .groups = who.groups, .trusted = trusted, .umask = 0};
      guests_.push_back(std::make_unique<Guest>(world.filesystem, options));
      CHECK(guests_.back()->chdir("/n/n/n"));
    }
  }

  std::string perform(const Call& c) override {
    Guest& guest = *guests_[static_cast<size_t>(c.actor)];
    switch (c.kind) {
      case Kind::kOpen:
        return open(guest, c);
      case Kind::kStat:
        return shown(guest.stat(c.path));
      case Kind::kLstat:
        return shown(guest.lstat(c.path));
      case Kind::kAccess:
        return shown(guest.access(c.path, c.flags));
      case Kind::kTruncate:
        return shown(guest.truncate(c.path, c.offset));
      case Kind::kMkdir:
        return shown(guest.mkdir(c.path, c.mode));
      case Kind::kMknod:
        return shown(guest.mknod(c.path, c.mode));
      case Kind::kUnlink:
        return shown(guest.unlink(c.path));
      case Kind::kRmdir:
        return shown(guest.rmdir(c.path));
      case Kind::kRename:
        return shown(guest.rename(c.path, c.other, static_cast<unsigned>(c.flags)));
      case Kind::kLink:
        return shown(guest.link(c.path, c.other, c.flags));
      case Kind::kSymlink:
        return shown(guest.symlink(c.other, c.path));
      case Kind::kReadlink:
        return shown(guest.readlink(c.path));
      case Kind::kChmod:
        return shown(guest.chmod(c.path, c.mode));
      case Kind::kChown:
        return shown(guest.lchown(c.path, c.mode, c.mode));
      case Kind::kList:
        return list(guest, c.path);
      case Kind::kTouch: {
        const timespec times[2] = {{5, c.flags == 2 ? 6 : UTIME_OMIT}, {7, c.flags == 2 ? 8 : UTIME_NOW}};
        return shown(guest.utimens(c.path, c.flags == 0 ? nullptr : times));
      }
      default:
        return by_handle(c);
    }
  }

  std::map<std::string, std::string> tree() override {
    Guest root(world.filesystem, {.umask = 0});
    std::map<std::string, std::string> found;
    std::map<uint64_t, std::string> first_names;
    describe_below(root, "", found, first_names);
    return found;
  }

  Recorded world;

 private:
  struct Handle {
    Guest* guest;
    int fd;
  };

  static std::string shown(const Outcome<void>& outcome) {
    return outcome ? ok() : failed(error_of(outcome));
  }
  static std::string shown(const Outcome<size_t>& outcome) {
    return outcome ? ok(std::to_string(*outcome)) : failed(error_of(outcome));
  }
  static std::string shown(const Outcome<std::string>& outcome) {
    return outcome ? ok(*outcome) : failed(error_of(outcome));
  }
  static std::string shown(const Outcome<Attributes>& outcome) {
    return outcome ? ok(describe(*outcome)) : failed(error_of(outcome));
  }
  static std::string describe(const Attributes& a) {
    return describe_attributes(a.mode, a.uid, a.gid, a.nlink, a.size);
  }

 public:
  static std::string describe_attributes(uint32_t mode, uint32_t uid, uint32_t gid, uint64_t nlink,
                                         uint64_t size) {
    char text[100];
    snprintf(text, sizeof text, "%o %u:%u links %lu size %lu", mode, uid, gid, nlink,
             S_ISDIR(mode) ? 0 : size);
    return text;
  }

 private:
  std::string open(Guest& guest, const Call& c) {
    auto fd = guest.open(c.path, c.flags, c.mode & 0777);
    if (!fd) return failed(error_of(fd));
    auto& handle = handles_[static_cast<size_t>(c.slot)];
    if (handle) CHECK(handle->guest->close(handle->fd));
    handle = Handle{&guest, *fd};
    return ok();
  }

  std::string by_handle(const Call& c) {
    auto& handle = handles_[static_cast<size_t>(c.slot)];
    if (!handle) return "no handle";
    auto [guest, fd] = *handle;
    std::string bytes(c.length, c.fill);
    switch (c.kind) {
      case Kind::kClose:
        handle.reset();
        return shown(guest->close(fd));
      case Kind::kWrite:
        return shown(guest->write(fd, as_bytes(bytes)));
      case Kind::kPwrite:
        return shown(guest->pwrite(fd, as_bytes(bytes), c.offset));
      case Kind::kFtruncate:
        return shown(guest->ftruncate(fd, c.offset));
      case Kind::kFchmod:
        return shown(guest->fchmod(fd, c.mode));
      case Kind::kFallocate:
        return shown(guest->fallocate(fd, c.flags, c.offset, static_cast<int64_t>(c.length)));
      case Kind::kLinkHandle:
        return shown(guest->link({fd, ""}, c.path, AT_EMPTY_PATH));
      case Kind::kCopyRange: {
        int64_t from = c.offset, to = c.flags;
        return shown(guest->copy_file_range(fd, &from, handles_[c.mode]->fd, &to, c.length));
      }
      case Kind::kFstat:
        return shown(guest->fstat(fd));
      case Kind::kSeek: {
        if (auto opened = guest->fstat(fd); opened && opened->is_directory()) return "not compared";
        auto sought = guest->seek(fd, c.offset, c.flags);
        return sought ? ok(std::to_string(*sought)) : failed(error_of(sought));
      }
      case Kind::kRead: {
        auto got = guest->read(fd, std::as_writable_bytes(std::span(bytes)));
        return got ? ok(bytes.substr(0, *got)) : failed(error_of(got));
      }
      default:
        CHECK(false);
    }
  }

  static std::string list(Guest& guest, const std::string& path) {
    auto entries = guest.list(path);
    if (!entries) return failed(error_of(entries));
    std::string names;
    for (const DirectoryEntry& entry : *entries) names += entry.name + " " + std::to_string(entry.type) + ",";
    return ok(names);
  }

  static void describe_below(Guest& root, const std::string& path, std::map<std::string, std::string>& found,
                             std::map<uint64_t, std::string>& first_names) {
    auto entries = root.list(path + "/");
    for (const DirectoryEntry& entry : *entries) {
      std::string name = path + "/" + entry.name;
      Attributes a = *root.lstat(name);
      std::string text = describe(a);
      if (a.is_regular()) text += " bytes " + *root.read_file(name);
      if (a.is_symlink()) text += " to " + *root.readlink(name);
      if (!a.is_directory()) text += " is " + first_names.try_emplace(a.inode.value, name).first->second;
      found[name] = text;
      if (a.is_directory()) describe_below(root, name, found, first_names);
    }
  }

  std::vector<std::unique_ptr<Guest>> guests_;
  std::array<std::optional<Handle>, kSlots> handles_;
};

}  // namespace reprise::fs
