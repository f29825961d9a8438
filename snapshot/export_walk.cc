#include "snapshot/export_walk.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <type_traits>
#include <unordered_map>

namespace reprise::snapshot {
namespace {

constexpr size_t kChunkBytes = 1 << 20;
constexpr uint64_t kProgressEvery = 64;  // entries

// A tree that answers with an errno where it should not is damaged.
template <class T>
Result<T> answer(fs::Outcome<T> outcome, const std::string& path) {
  if constexpr (std::is_void_v<T>) {
    if (outcome) return {};
  } else {
    if (outcome) return std::move(*outcome);
  }
  return fail(Code::kCorrupt,
              fmt::format("{} in the tree: {}", printable(path), fs::errno_text(outcome.error())));
}

bool matches(const std::string& pattern, const std::string& path) {
  std::string_view from_top = pattern;
  if (from_top.find('/') == std::string_view::npos)
    return fnmatch(pattern.c_str(), path.c_str() + path.rfind('/') + 1, 0) == 0;
  while (from_top.starts_with('/')) from_top.remove_prefix(1);
  while (from_top.ends_with('/')) from_top.remove_suffix(1);
  return fnmatch(std::string(from_top).c_str(), path.c_str(), FNM_PATHNAME) == 0;
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& path) {
  return std::ranges::any_of(patterns, [&](const std::string& pattern) { return matches(pattern, path); });
}

class Walk {
 public:
  Walk(const fs::Tree& tree, EntrySink& sink, const ExportOptions& options, const ExportProgress& progress)
      : tree_(tree), sink_(sink), options_(options), progress_(progress) {}

  Result<Exported> run(InodeId top) {
    fs::Attributes attributes = TRY(answer(tree_.stat(top), "the top"));
    if (!attributes.is_directory())
      return fail(Code::kInvalidArgument, "expected a directory to export, found another file");
    ExportEntry itself{.path = "", .attributes = attributes, .target = {}, .hard_link = {}, .xattrs = {}};
    TRY(drop_privileges(itself));
    TRY(sink_.add_top(itself, done_));
    TRY(push_entries("", top, options_.filter.include.empty()));
    while (!pending_.empty()) {
      Pending next = std::move(pending_.back());
      pending_.pop_back();
      TRY(visit(next));
    }
    TRY(sink_.finish());
    if (progress_) progress_(done_);
    return done_;
  }

 private:
  struct Pending {
    std::string path;
    InodeId inode;
    bool included = false;  // as something above it is
  };

  // The last one is visited first.
  Status push_entries(const std::string& path, InodeId directory, bool included) {
    size_t begin = pending_.size();
    auto read = tree_.read_directory(directory, 0, [&](const fs::Dentry& entry) {
      std::string below = path.empty() ? std::string(entry.name) : fmt::format("{}/{}", path, entry.name);
      pending_.push_back({std::move(below), entry.inode, included});
      return true;
    });
    TRY(answer(read, path));
    std::sort(pending_.begin() + static_cast<ptrdiff_t>(begin), pending_.end(),
              [](const Pending& a, const Pending& b) { return a.path > b.path; });
    return {};
  }

  Status visit(const Pending& at) {
    while (!held_back_.empty() && !at.path.starts_with(held_back_.back().path + "/")) held_back_.pop_back();
    if (progress_ && ++seen_ % kProgressEvery == 0) progress_(done_);
    fs::Attributes attributes = TRY(answer(tree_.stat(at.inode), at.path));
    Filtered filtered = filter_path(options_.filter, at.path, attributes.is_directory(), at.included);
    if (filtered == Filtered::kOut) return {};
    bool included = filtered == Filtered::kIn;
    ExportEntry entry{.path = at.path, .attributes = attributes, .target = {}, .hard_link = {}, .xattrs = {}};
    if (!included) {
      held_back_.push_back(std::move(entry));
    } else {
      for (ExportEntry& above : held_back_) TRY(write(above));
      held_back_.clear();
      TRY(write(entry));
    }
    return attributes.is_directory() ? push_entries(at.path, at.inode, included) : Status{};
  }

  Status write(ExportEntry& entry) {
    fs::Attributes& attributes = entry.attributes;
    if (S_ISSOCK(attributes.mode)) {
      done_.skipped_sockets++;
      return {};
    }
    bool device = S_ISCHR(attributes.mode) || S_ISBLK(attributes.mode);
    std::string* first = nullptr;
    if (attributes.nlink > 1 && !attributes.is_directory()) {
      auto [known, is_new] = written_.try_emplace(attributes.inode, entry.path);
      if (!is_new) first = &known->second;
    }
    if (device && !options_.devices) {
      if (first == nullptr) done_.skipped_devices++;
      return {};
    }
    if (first != nullptr) entry.hard_link = *first;
    if (attributes.is_symlink()) {
      entry.target = TRY(answer(tree_.read_link(attributes.inode), entry.path));
    } else if (first == nullptr) {
      TRY(drop_privileges(entry));
    } else if (!options_.set_ids) {
      attributes.mode &= ~uint32_t{06000};
    }
    return sink_.add(entry, done_);
  }

  // What is not to be kept of its mode and attributes; the rest is added to the entry.
  Status drop_privileges(ExportEntry& entry) {
    if (!options_.set_ids && (entry.attributes.mode & 06000) != 0) {
      entry.attributes.mode &= ~uint32_t{06000};
      done_.skipped_set_ids++;
    }
    auto listed = tree_.list_xattrs(entry.attributes.inode, [&](std::string_view name, ByteView value) {
      bool privileged = name.starts_with("security.") || name.starts_with("trusted.");
      if (privileged && !options_.all_xattrs) {
        done_.skipped_xattrs++;
      } else {
        entry.xattrs.emplace_back(name, value);
      }
    });
    TRY(answer(listed, entry.path));
    std::ranges::sort(entry.xattrs, {}, [](const auto& xattr) { return xattr.first; });
    return {};
  }

  const fs::Tree& tree_;
  EntrySink& sink_;
  const ExportOptions& options_;
  const ExportProgress& progress_;
  Exported done_;
  uint64_t seen_ = 0;
  std::vector<Pending> pending_;
  std::vector<ExportEntry> held_back_;  // directories that are there only if something in them is
  std::unordered_map<InodeId, std::string> written_;  // inodes with several names: the first
};

}  // namespace

Filtered filter_path(const PathFilter& filter, const std::string& path, bool is_directory,
                     bool included_above) {
  if (matches_any(filter.exclude, path)) return Filtered::kOut;
  if (included_above || filter.include.empty() || matches_any(filter.include, path)) return Filtered::kIn;
  return is_directory ? Filtered::kMaybeBelow : Filtered::kOut;
}

Result<Exported> walk_tree(const fs::Tree& tree, InodeId top, EntrySink& sink, const ExportOptions& options,
                           const ExportProgress& progress) {
  return Walk(tree, sink, options, progress).run(top);
}

Status for_each_piece(const fs::Tree& tree, const ExportEntry& entry, Bytes& buffer,
                      const std::function<Status(uint64_t offset, ByteView bytes)>& take) {
  InodeId inode = entry.attributes.inode;
  uint64_t size = entry.attributes.size;
  for (uint64_t offset = 0; offset < size;) {
    auto data = tree.seek_data(inode, offset);
    if (!data && data.error() == fs::Errno{ENXIO}) return {};  // a hole to the end
    TRY(answer(data, entry.path));
    uint64_t end = std::min(size, TRY(answer(tree.seek_hole(inode, *data), entry.path)));
    for (offset = *data; offset < end;) {
      buffer.resize(std::min<uint64_t>(kChunkBytes, end - offset));
      size_t got = TRY(answer(tree.read(inode, offset, buffer), entry.path));
      TRY(take(offset, ByteView(buffer).first(got)));
      offset += buffer.size();
    }
  }
  return {};
}

}  // namespace reprise::snapshot
