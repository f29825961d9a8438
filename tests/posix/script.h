// Script: calls as values with a text form, and a Crew that makes them. The same script put to two crews must
// get the same answers and leave the same tree.
//
// The text has one call a line: the caller's number, the call, then what differs from the defaults:
//
//   0 mkdir path=d mode=0755
//   1 open slot=2 path=d/f flags=0102 mode=0644      flags and mode are octal
//   1 pwrite slot=2 offset=10 length=3 fill=x
//
// Strings are percent-encoded. Lines that are empty or begin with # say nothing.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/posix/calls.h"

namespace reprise::posix {

struct Step {
  std::string call;
  int caller = 0;           // index; a call by handle is its opener's
  int slot = 0, other = 0;  // of the few handles a script has
  int at = -1;              // slot of the directory that `path` starts at; -1: the working directory
  std::string path, to;     // to: a second path, a symlink's target, an attribute's value
  std::string name;         // of an attribute
  int flags = 0;            // of open, rename, link, fallocate, fcntl, access; whence of seek; which times
  uint32_t mode = 0;        // of open, mkdir, mknod, chmod, umask
  uint32_t uid = 0, gid = 0;
  int64_t offset = 0, to_offset = 0;  // also a size
  size_t length = 0;
  char fill = 'x';  // what is written
  auto operator<=>(const Step&) const = default;
};
using Script = std::vector<Step>;

std::string to_text(const Step& step);
std::string to_text(const Script& script);
// nullopt if some line is none.
std::optional<Script> parse_script(std::string_view text);

// The callers of one filesystem and the handles they share.
class Crew {
 public:
  static constexpr int kSlots = 4;

  struct Member {
    Credentials who;
    std::unique_ptr<Calls> calls;
  };
  explicit Crew(std::vector<Member> members);

  // The answer in words: an errno, or the result.
  std::string perform(const Step& step);
  // Every path with all that two filesystems can agree on, as the first caller sees it.
  std::map<std::string, std::string> tree();
  static std::vector<std::string> call_names();

 private:
  friend struct Performances;
  struct Handle {
    int caller, fd;
  };
  std::optional<Handle>& handle(int slot) { return handles_[static_cast<size_t>(slot % kSlots)]; }
  void describe_below(const std::string& path, std::map<std::string, std::string>& found,
                      std::map<uint64_t, std::string>& first_names);

  std::vector<std::unique_ptr<Calls>> callers_;
  std::vector<uint32_t> uids_;  // theirs
  std::array<std::optional<Handle>, kSlots> handles_;
};

}  // namespace reprise::posix
