#include "instance/record_tree.h"

#include <dirent.h>
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/check.h"
#include "fs/diff.h"
#include "fs/transition.h"
#include "instance/snapshots.h"

namespace reprise::instance {
namespace {

constexpr size_t kPieceBytes = 256 << 10;
constexpr uint64_t kOperationBytes = 128;  // about what one takes without its bytes

// It has the directory's own id, so that what somebody else has called alike is not taken for one.
std::string staging_name(InodeId directory) {
  return fmt::format(".reprise-import-{:x}", directory.value);
}

class TreeRecorder {
 public:
  TreeRecorder(Instance& instance, const fs::View& before, const fs::Tree& wanted, std::string_view label,
               Timestamp now, const RecordLimits& limits)
      : instance_(instance),
        before_(before),
        wanted_(wanted),
        label_(label),
        now_(now),
        limits_(limits),
        expected_(before.root()) {}

  Status run() {
    TRY(check_limits());
    TRY(load_all(before_));
    TRY(load_all(wanted_));
    find_changes();
    if (names_.empty() && kept_.empty()) return {};
    if (fits_one_call()) {
      return call([&](Changes& changes) {
        for (const Name& name : names_) {
          if (name.replaced) changes.apply(fs::Unlink{name.directory, name.name, name.replaced, now_});
          work_.push_back({Work::kMake, name.directory, name.name, name.inode, {}, 0});
          while (!work_.empty()) step(changes);
        }
        finish_kept(changes);
      });
    }
    return run_staged();
  }
  uint64_t passed_over() const { return passed_over_; }

 private:
  // A name in a directory that was there before, whose meaning is new.
  struct Name {
    InodeId directory;
    std::string name;
    InodeId inode;     // in wanted_
    InodeId replaced;  // in both, if there was something else of this name
  };
  // What is still to be done, the last first.
  struct Work {
    enum Kind : uint8_t { kMake, kWrite, kFinish } kind;
    InodeId parent;  // kMake
    std::string name;
    InodeId inode;  // in wanted_
    InodeId real;   // what that is called here
    uint64_t offset = 0;
  };

  Status check_limits() const {
    fs::SetLimits limits = instance_.filesystem().limits();
    fs::Usage usage = wanted_.usage();
    bool full = (limits.bytes != 0 && usage.blocks * fs::kBlockSize > limits.bytes) ||
                (limits.inodes != 0 && usage.inodes > limits.inodes);
    if (!full) return {};
    return fail(Code::kNoSpace,
                fmt::format("the volume may hold {} and {} inodes, and would have to hold {} and {}",
                            format_bytes(limits.bytes), limits.inodes,
                            format_bytes(usage.blocks * fs::kBlockSize), usage.inodes));
  }

  void find_changes() {
    for_each_changed_inode(before_, wanted_, [&](const fs::ChangedInode& changed) {
      if (!changed.before) return true;  // it comes with its name
      if (!changed.after) return true;   // so it goes
      CHECK(!changed.content);
      const size_t names = names_.size();
      for_each_changed_name(before_, wanted_, changed.inode, [&](const fs::ChangedName& name) {
        CHECK(name.after && !before_.stat(*name.after));
        if (name.before && is_as_it_was(*name.before, *name.after)) {
          passed_over_++;
        } else {
          names_.push_back(
              {changed.inode, std::string(name.name), *name.after, name.before.value_or(InodeId{})});
        }
        return true;
      });
      if (names_.size() > names || changed.xattrs || !same_attributes(*changed.before, *changed.after))
        kept_.push_back(changed.inode);
      return true;
    });
    std::ranges::sort(names_, [](const Name& a, const Name& b) {
      return std::pair(a.directory, std::string_view(a.name)) <
             std::pair(b.directory, std::string_view(b.name));
    });
  }

  static bool same_attributes(const fs::Attributes& a, const fs::Attributes& b) {
    return a.mode == b.mode && a.uid == b.uid && a.gid == b.gid && a.nlink == b.nlink && a.rdev == b.rdev &&
           a.size == b.size && a.mtime == b.mtime;
  }
  bool same_xattrs(InodeId before, InodeId after) const {
    size_t had = 0;
    bool same = true;
    CHECK(before_.list_xattrs(before, [&](std::string_view, ByteView) { had++; }));
    CHECK(wanted_.list_xattrs(after, [&](std::string_view name, ByteView value) {
      auto other = before_.get_xattr(before, name);
      same = same && other && std::ranges::equal(*other, value);
      had--;
    }));
    return same && had == 0;
  }
  // A file that has taken the place of one that is no other: that one stays, with all who have it open.
  bool is_as_it_was(InodeId before, InodeId after) const {
    const fs::Attributes a = *before_.stat(before), b = *wanted_.stat(after);
    if (a.is_directory() || a.nlink != 1 || !same_attributes(a, b) || !same_xattrs(before, after))
      return false;
    if (a.is_symlink()) return *before_.read_link(before) == *wanted_.read_link(after);
    bool same = true;
    if (a.is_regular())
      for_each_changed_range(before_, before, wanted_, after,
                             [&](uint64_t, uint64_t) { return same = false; });
    return same;
  }

  bool fits_one_call() const {
    fs::Usage had = before_.usage(), has = wanted_.usage();
    auto more = [](uint64_t from, uint64_t to) { return to > from ? to - from : 0; };
    uint64_t bytes = more(had.blocks, has.blocks) * fs::kBlockSize;
    for (const Name& name : names_)  // what takes the place of as much does not show in the usage
      if (name.replaced) bytes += wanted_.stat(name.inode)->blocks * fs::kBlockSize;
    return bytes <= limits_.bytes && more(had.inodes, has.inodes) <= limits_.inodes &&
           names_.size() <= limits_.inodes;
  }

  // Everything is made in a hidden directory, call by call; the last call moves it to its places.
  Status run_staged() {
    std::string name;
    InodeId staging;
    TRY(call([&](Changes& changes) {
      staging = changes.new_inode();
      name = staging_name(staging);
      changes.apply(fs::Create{.parent = kRootInode,
                               .name = name,
                               .inode = staging,
                               .mode = S_IFDIR | 0700,
                               .target = {},
                               .time = now_});
    }));
    for (size_t i = 0; i < names_.size(); i++) {
      work_.push_back({Work::kMake, staging, std::to_string(i), names_[i].inode, {}, 0});
      // Small ones go together.
      if (i + 1 < names_.size() && work_.size() < limits_.inodes) continue;
      std::ranges::reverse(work_);
      while (!work_.empty()) {
        TRY(call([&](Changes& changes) {
          for (spent_ = 0; !work_.empty() && spent_ < limits_.bytes;) step(changes);
        }));
      }
    }
    return call([&](Changes& changes) {
      for (size_t i = 0; i < names_.size(); i++) {
        changes.apply(fs::Rename{.old_parent = staging,
                                 .old_name = std::to_string(i),
                                 .new_parent = names_[i].directory,
                                 .new_name = names_[i].name,
                                 .inode = real_.at(names_[i].inode),
                                 .replaced = names_[i].replaced,
                                 .time = now_});
        changes.apply(fs::setting_all(real_.at(names_[i].inode), *wanted_.stat(names_[i].inode)));
      }
      changes.apply(fs::Rmdir{kRootInode, name, staging, now_});
      changes.apply(
          fs::setting_all(kRootInode, *wanted_.stat(kRootInode)));  // which the hidden directory has touched
      finish_kept(changes);
    });
  }

  Status call(const std::function<void(Changes&)>& make) {
    auto done = instance_.change(label_, limits_.bytes, [&](Changes& changes) -> Status {
      if (changes.tree().root() != expected_) return fail(Code::kBusy, "the tree has changed meanwhile");
      make(changes);
      return {};
    });
    // Pinned, so that whatever somebody else changes gives another root.
    last_ = instance_.filesystem().view();
    expected_ = last_.root();
    return done;
  }

  void step(Changes& changes) {
    Work work = std::move(work_.back());
    work_.pop_back();
    spent_ += kOperationBytes + work.name.size();
    switch (work.kind) {
      case Work::kMake:
        return make(changes, work);
      case Work::kWrite:
        return write(changes, std::move(work));
      case Work::kFinish:
        finish(changes, work.inode, work.real);
    }
  }

  void make(Changes& changes, const Work& work) {
    if (auto known = real_.find(work.inode); known != real_.end())
      return changes.apply(fs::Link{work.parent, work.name, known->second, now_});
    fs::Attributes attributes = *wanted_.stat(work.inode);
    std::string target;
    if (attributes.is_symlink()) target = *wanted_.read_link(work.inode);
    InodeId real = changes.new_inode();
    real_.emplace(work.inode, real);
    changes.apply(fs::Create{.parent = work.parent,
                             .name = work.name,
                             .inode = real,
                             .mode = attributes.mode,
                             .uid = attributes.uid,
                             .gid = attributes.gid,
                             .rdev = attributes.rdev,
                             .target = target,
                             .time = now_});
    work_.push_back({Work::kFinish, {}, "", work.inode, real, 0});
    if (attributes.is_regular() && attributes.size > 0)
      work_.push_back({Work::kWrite, {}, "", work.inode, real, 0});
    if (attributes.is_directory()) push_entries(work.inode, real);
  }

  void push_entries(InodeId directory, InodeId real) {
    size_t begin = work_.size();
    CHECK(wanted_.read_directory(directory, 0, [&](const fs::Dentry& entry) {
      work_.push_back({Work::kMake, real, std::string(entry.name), entry.inode, {}, 0});
      return true;
    }));
    std::sort(work_.begin() + static_cast<ptrdiff_t>(begin), work_.end(),
              [](const Work& a, const Work& b) { return a.name > b.name; });
  }

  // The next piece that is no hole, or else the size.
  void write(Changes& changes, Work work) {
    uint64_t size = wanted_.stat(work.inode)->size;
    auto data = wanted_.seek_data(work.inode, work.offset);
    if (!data) return changes.apply(fs::Truncate{work.real, size, now_});
    uint64_t end = std::min(*wanted_.seek_hole(work.inode, *data), size);
    piece_.resize(std::min<uint64_t>(kPieceBytes, end - *data));
    CHECK(wanted_.read(work.inode, *data, piece_) == piece_.size());
    changes.apply(fs::Write{work.real, *data, piece_, now_});
    spent_ += piece_.size();
    work.offset = *data + piece_.size();
    if (work.offset < size) work_.push_back(std::move(work));
  }

  void finish(Changes& changes, InodeId inode, InodeId real) {
    CHECK(wanted_.list_xattrs(inode, [&](std::string_view name, ByteView value) {
      changes.apply(fs::SetXattr{real, name, value, now_});
      spent_ += name.size() + value.size();
    }));
    changes.apply(fs::setting_all(real, *wanted_.stat(inode)));
  }

  // Inodes that were there before: directories that have got names, files that have lost one.
  void finish_kept(Changes& changes) {
    for (InodeId inode : kept_) {
      if (wanted_.stat(inode)->nlink == 0) continue;
      CHECK(wanted_.list_xattrs(inode, [&](std::string_view name, ByteView value) {
        auto had = before_.get_xattr(inode, name);
        if (!had || !std::ranges::equal(*had, value)) changes.apply(fs::SetXattr{inode, name, value, now_});
      }));
      changes.apply(fs::setting_all(inode, *wanted_.stat(inode)));
    }
  }

  Instance& instance_;
  const fs::View& before_;
  const fs::Tree& wanted_;
  const std::string_view label_;
  const Timestamp now_;
  const RecordLimits limits_;
  fs::View last_;             // as the last call left it
  const fs::Node* expected_;  // its root
  std::vector<Name> names_;
  std::vector<InodeId> kept_;
  std::vector<Work> work_;
  std::unordered_map<InodeId, InodeId>
      real_;  // inodes of wanted_ that are made, and what they are called here
  uint64_t passed_over_ = 0;
  uint64_t spent_ = 0;  // bytes that the call has recorded
  Bytes piece_;
};

}  // namespace

Result<uint64_t> record_tree(Instance& instance, const fs::View& before, const fs::Tree& wanted,
                             std::string_view label, Timestamp now, const RecordLimits& limits) {
  TreeRecorder recorder(instance, before, wanted, label, now, limits);
  TRY(recorder.run());
  return recorder.passed_over();
}

Result<uint64_t> remove_left_imports(Instance& instance, std::string_view label, Timestamp now,
                                     const RecordLimits& limits) {
  struct Name {
    InodeId parent;
    std::string name;
    InodeId inode;
    bool directory = false;
  };
  fs::View tree = instance.filesystem().view();
  std::vector<Name> names;  // each directory before what is in it
  auto list = [&](InodeId directory, auto&& wanted) -> Status {
    auto read = tree.read_directory(directory, 0, [&](const fs::Dentry& entry) {
      if (wanted(entry))
        names.push_back({directory, std::string(entry.name), entry.inode, entry.type == DT_DIR});
      return true;
    });
    if (read) return {};
    return fail(Code::kCorrupt,
                fmt::format("inode {:x}: cannot list it: {}", directory.value, fs::errno_text(read.error())));
  };
  TRY(list(kRootInode, [](const fs::Dentry& entry) { return entry.name == staging_name(entry.inode); }));
  const uint64_t found = names.size();
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i].directory) TRY(list(names[i].inode, [](const fs::Dentry&) { return true; }));
  while (!names.empty()) {
    TRY(instance.change(label, limits.bytes, [&](Changes& changes) -> Status {
      for (uint64_t n = 0; n < limits.inodes && !names.empty(); ++n, names.pop_back()) {
        const Name& last = names.back();
        if (last.directory) {
          changes.apply(fs::Rmdir{last.parent, last.name, last.inode, now});
        } else {
          changes.apply(fs::Unlink{last.parent, last.name, last.inode, now});
        }
      }
      return {};
    }));
  }
  return found;
}

}  // namespace reprise::instance
