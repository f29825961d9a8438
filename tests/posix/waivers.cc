#include "tests/posix/waivers.h"

#include <algorithm>
#include <array>

namespace reprise::posix {
namespace {

constexpr std::string_view kChownOfBoth =
    "the kernel sends a chown that keeps both ids as it does the first half of a write, so that the server "
    "cannot tell who must own the file";
constexpr std::string_view kSeeksAnywhere =
    "the kernel answers by itself, and takes a FUSE filesystem's files to have no largest size";

constexpr std::array kWaivers{
    Waiver{Which::kFuse, "Shifts", "", "", "the kernel's FUSE client passes on no collapsing and inserting"},
    Waiver{Which::kFuse, "Acls", "", "", "refused, since nothing would enforce them (docs/fuse.md)"},
    Waiver{Which::kTmpfs, "Acls", "", "",
           "the kernel evaluates them and changes the mode; ours are passed through"},
    Waiver{Which::kInProcess, "Fifos", "", "", "guests in process have no pipes: opening a FIFO is ENXIO"},
    Waiver{Which::kInProcess, "FifoErrors", "", "",
           "guests in process have no pipes: opening a FIFO is ENXIO"},
    Waiver{Which::kInProcess, "Programs", "", "",
           "guests in process run nothing: no file of theirs is busy as a program"},
    Waiver{Which::kFuse, "ChownErrors", R"(alice.chown("suid", kKeep, kKeep))", "ok", kChownOfBoth},
    Waiver{Which::kFuse, "ChownErrors", R"(alice.fchown(fd("suid", O_RDONLY), kKeep, kKeep))", "ok",
           kChownOfBoth},
    Waiver{Which::kFuse, "SizeErrors", R"(root.seek(fd("file", O_RDONLY), (int64_t{1} << 44) + 1, SEEK_SET))",
           "ok", kSeeksAnywhere},
    Waiver{Which::kFuse, "SizeErrors", R"(root.seek(fd("file", O_RDONLY), INT64_MAX, SEEK_CUR))", "ok",
           kSeeksAnywhere},
};

constexpr std::array kSilences{
    Silence{
        NotCompared::kFifo,
        "opening a FIFO waits for its other end, and guests in process have no pipes; a mount is not told of "
        "what goes through one, and keeps its times"},
    Silence{NotCompared::kSameSize,
            "truncating to the size there is sets the times on tmpfs only if it holds pages of the file"},
    Silence{NotCompared::kPositions, "positions in a directory are each filesystem's own"},
    Silence{NotCompared::kForeignLink,
            "what is somebody else's only root may link where fs.protected_hardlinks is set, by the mode "
            "that the "
            "kernel remembers: after a write that has taken bits from it an older one"},
};

bool keeps_both_ids(const Step& step) {
  constexpr uint32_t kKeep = ~uint32_t{0};
  return step.call.ends_with("chown") && step.uid == kKeep && step.gid == kKeep;
}

constexpr std::array kExcuses{
    Excuse{Which::kFuse, keeps_both_ids, "ok", "EPERM", kChownOfBoth},
};

}  // namespace

std::string name_of(Which which) {
  switch (which) {
    case Which::kInProcess:
      return "InProcess";
    case Which::kFuse:
      return "Fuse";
    case Which::kTmpfs:
      return "Tmpfs";
    case Which::kExt4:
      return "Ext4";
  }
  return "?";
}

std::span<const Waiver> waivers() {
  return kWaivers;
}

const Waiver* waiver_of(Which which, std::string_view suite, std::string_view row) {
  auto found = std::ranges::find_if(kWaivers, [&](const Waiver& one) {
    return one.which == which && one.suite == suite && one.row == row;
  });
  return found == kWaivers.end() ? nullptr : &*found;
}

std::span<const Silence> silences() {
  return kSilences;
}

std::span<const Excuse> excuses() {
  return kExcuses;
}

bool excused(Which which, const Step& step, std::string_view got, std::string_view expected) {
  return std::ranges::any_of(kExcuses, [&](const Excuse& one) {
    return one.which == which && one.got == got && one.expected == expected && one.applies(step);
  });
}

}  // namespace reprise::posix
