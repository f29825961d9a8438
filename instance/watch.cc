#include "instance/watch.h"

#include <algorithm>
#include <map>
#include <optional>

#include "instance/snapshots.h"

namespace reprise::instance {
namespace {

// Operations to changes of paths, several of one path to one.
class Coalescer {
 public:
  Coalescer(PathIndex& paths, std::vector<PathChange>& changes) : paths_(paths), changes_(changes) {}

  void follow(const fs::Operation& operation) {
    std::visit([this](const auto& op) { take(op); }, operation);
  }
  // What came and went is nothing.
  void finish() {
    std::erase_if(changes_, [](const PathChange& change) { return change.path.empty(); });
  }

 private:
  using Kind = PathChange::Kind;
  using Path = std::optional<std::string>;

  void take(const fs::Create& op) { gains_name(op, op.parent, op.name); }
  void take(const fs::Link& op) { gains_name(op, op.parent, op.name); }
  void take(const fs::Unlink& op) { loses_name(op, op.parent, op.name); }
  void take(const fs::Rmdir& op) { loses_name(op, op.parent, op.name); }
  void take(const fs::Write& op) { changes_content(op.inode); }
  void take(const fs::Truncate& op) { changes_content(op.inode); }
  void take(const fs::Allocate& op) { changes_content(op.inode); }
  void take(const fs::CopyRange& op) { changes_content(op.to); }
  void take(const fs::SetAttributes& op) { changes_attributes(op.inode); }
  void take(const fs::SetXattr& op) { changes_attributes(op.inode); }
  void take(const fs::RemoveXattr& op) { changes_attributes(op.inode); }
  void take(const fs::Rename& op) {
    Path from = paths_.find_path(op.old_parent, op.old_name),
         to = paths_.find_path(op.new_parent, op.new_name);
    paths_.follow(op);
    if (!from || !to) return;
    if (op.exchange) {
      replaced(*from);
      replaced(*to);
    } else {
      moved(*from, *to, bool(op.replaced));
    }
  }
  template <class Other>
  void take(const Other&) {}  // of the volume, not of a path

  void gains_name(const fs::Operation& operation, InodeId parent, std::string_view name) {
    paths_.follow(operation);
    if (Path path = paths_.find_path(parent, name)) created(*path);
  }
  void loses_name(const fs::Operation& operation, InodeId parent, std::string_view name) {
    Path path = paths_.find_path(parent, name);
    paths_.follow(operation);
    if (path) removed(*path);
  }
  void changes_content(InodeId inode) {
    if (PathChange* change = changed(paths_.find_path(inode))) change->content = true;
  }
  void changes_attributes(InodeId inode) {
    if (PathChange* change = changed(paths_.find_path(inode))) change->attributes = true;
  }

  // What was last told of the path, if that still speaks of what is there now.
  PathChange* latest(const std::string& path) {
    auto at = latest_.find(path);
    return at == latest_.end() ? nullptr : &changes_[at->second];
  }
  PathChange& add(PathChange change) {
    latest_[change.path] = changes_.size();
    return changes_.emplace_back(std::move(change));
  }
  void take_out(const std::string& path) {
    latest(path)->path.clear();
    latest_.erase(path);
  }

  void created(const std::string& path) {
    PathChange* before = latest(path);
    if (before != nullptr && before->kind == Kind::kRemoved) {
      *before = {.kind = Kind::kChanged, .path = path, .content = true, .attributes = true};
    } else {
      add({.kind = Kind::kCreated, .path = path});
    }
  }
  void removed(const std::string& path) {
    PathChange* before = latest(path);
    if (before != nullptr && before->kind == Kind::kCreated) {
      take_out(path);
    } else if (before != nullptr && before->kind == Kind::kChanged) {
      *before = {.kind = Kind::kRemoved, .path = path};
    } else {
      add({.kind = Kind::kRemoved, .path = path});
    }
  }
  // Null where there is nothing to add: it has no name, or is new as a whole.
  PathChange* changed(const Path& path) {
    if (!path) return nullptr;
    PathChange* before = latest(*path);
    if (before == nullptr || before->kind == Kind::kRemoved)
      return &add({.kind = Kind::kChanged, .path = *path});
    return before->kind == Kind::kCreated ? nullptr : before;
  }
  void replaced(const std::string& path) {
    if (PathChange* change = changed(path)) change->content = change->attributes = true;
    forget_below(path);
  }
  void moved(const std::string& from, const std::string& to, bool replaces) {
    PathChange* before = latest(from);
    bool is_new = before != nullptr && before->kind == Kind::kCreated;
    // A new file that gets its name last, as editors do it, is new there. Not a directory of which more was
    // told.
    if (is_new && !has_latest_below(from)) {
      take_out(from);
      if (replaces) return replaced(to);
      return created(to);
    }
    latest_.erase(from);
    forget_below(from);
    forget_below(to);
    add({.kind = Kind::kRenamed, .path = to, .from = from});
  }

  bool has_latest_below(const std::string& path) const {
    auto at = latest_.lower_bound(path + "/");
    return at != latest_.end() && at->first.starts_with(path + "/");
  }
  // What is below will be called otherwise: what is told of it later must come later.
  void forget_below(const std::string& path) {
    auto begin = latest_.lower_bound(path + "/"), end = begin;
    while (end != latest_.end() && end->first.starts_with(path + "/")) ++end;
    latest_.erase(begin, end);
  }

  PathIndex& paths_;
  std::vector<PathChange>& changes_;
  std::map<std::string, size_t> latest_;
};

}  // namespace

std::string_view kind_name(PathChange::Kind kind) {
  switch (kind) {
    case PathChange::Kind::kCreated:
      return "created";
    case PathChange::Kind::kChanged:
      return "changed";
    case PathChange::Kind::kRemoved:
      return "removed";
    case PathChange::Kind::kRenamed:
      return "renamed";
  }
  return "unknown";
}

Result<std::unique_ptr<Watch>> Watch::begin(Instance& instance, WatchOptions options) {
  std::unique_ptr<Watch> watch(new Watch(instance, options));
  TRY(watch->start_anew());
  return watch;
}

Status Watch::start_anew() {
  replay::Pinned pinned = TRY(instance_.pin());
  TRY(load_names(pinned.view));  // what cannot be loaded would have no path
  paths_ = PathIndex(pinned.view);
  last_ = pinned.moment.log_index;
  cursor_ = instance_.journal().read(last_ + 1);
  return {};
}

Result<Watched> Watch::overrun() {
  TRY(start_anew());
  return Watched{.overrun = true, .last = last_};
}

bool Watch::is_too_far_behind() const {
  LogIndex newest = instance_.journal().last();
  return newest > last_ && newest - last_ > options_.behind_max;
}

Result<Watched> Watch::next(uint32_t timeout_ms) {
  if (is_too_far_behind()) return overrun();
  Watched out;
  Coalescer coalescer(paths_, out.changes);
  const LogIndex before = last_;
  for (bool waited = false; out.changes.size() < options_.paths_max;) {
    auto next = cursor_->next();
    if (!next && next.error().code() == Code::kGap) return overrun();
    if (!next) return std::unexpected(next.error());
    if (*next) {
      (*next)->batch.for_each([&](const fs::Operation& operation) { coalescer.follow(operation); });
      last_ = (*next)->index;
      continue;
    }
    if (waited || last_ != before || !cursor_->wait(timeout_ms)) break;
    waited = true;
  }
  coalescer.finish();
  out.last = last_;
  return out;
}

}  // namespace reprise::instance
