// A filesystem as plain as can be: a graph of nodes with maps of names, no sharing, no permissions (its
// caller is root and trusted). What a Guest must agree with.
#pragma once

#include <sys/stat.h>

#include <deque>

#include "tests/fs/guest_calls.h"

namespace reprise::fs {

class ModelCallee final : public Callee {
 public:
  ModelCallee() {
    root_ = new_node(S_IFDIR | 0755);
    root_->parent = root_;
    working_directory_ = root_;
    for (int i = 0; i < 3; ++i) working_directory_ = make(working_directory_, "n", S_IFDIR | 0777);
  }

  std::string perform(const Call& c) override {
    try {
      return call(c);
    } catch (Failed failure) {
      return failed(failure.error);
    }
  }

  std::map<std::string, std::string> tree() override {
    std::map<std::string, std::string> found;
    std::map<Node*, std::string> first_names;
    describe_below(root_, "", found, first_names);
    return found;
  }

 private:
  struct Failed {
    int error;
  };
  struct Node {
    uint32_t mode = 0, uid = 0, gid = 0;
    int links = 0;
    std::string bytes;  // or a symlink's target
    std::map<std::string, Node*> names;
    Node* parent = nullptr;  // of a directory

    bool is(uint32_t type) const { return (mode & S_IFMT) == type; }
    bool removed() const { return links == 0; }
    int shown_links() const {
      if (!is(S_IFDIR) || removed()) return links;
      int subdirectories = 0;
      for (auto& [name, node] : names) subdirectories += node->is(S_IFDIR);
      return 2 + subdirectories;
    }
  };
  struct Spot {  // where the last part of a path is
    Node* parent = nullptr;
    std::string name;  // empty: the root
    bool slash = false;

    bool ordinary() const { return !name.empty() && name != "." && name != ".."; }
  };
  struct Handle {
    Node* node;
    int flags;
    int64_t position = 0;
  };

  [[noreturn]] static void fail_with(int error) { throw Failed{error}; }
  static void require(bool condition, int error) {
    if (!condition) fail_with(error);
  }

  // --- nodes

  Node* new_node(uint32_t mode) {
    Node& node = nodes_.emplace_back();
    node.mode = mode;
    node.links = 1;
    return &node;
  }
  Node* make(Node* parent, const std::string& name, uint32_t mode, std::string bytes = "") {
    Node* node = new_node(mode);
    node->bytes = std::move(bytes);
    if ((parent->mode & S_ISGID) != 0) {
      node->gid = parent->gid;
      if (node->is(S_IFDIR)) node->mode |= S_ISGID;
    }
    node->parent = parent;
    parent->names[name] = node;
    return node;
  }
  static Node* child(Node* directory, const std::string& name) {
    auto found = directory->names.find(name);
    return found == directory->names.end() ? nullptr : found->second;
  }
  static bool below(Node* node, Node* ancestor) {
    for (;; node = node->parent) {
      if (node == ancestor) return true;
      if (node->parent == node) return false;
    }
  }

  // --- paths

  // Null if there is nothing of that name.
  static Node* step(Node* directory, const std::string& name) {
    require(directory->is(S_IFDIR), ENOTDIR);
    if (name.empty() || name == ".") return directory;
    if (name == "..") return directory->parent;
    if (directory->removed()) return nullptr;
    require(name.size() <= 255, ENAMETOOLONG);
    return child(directory, name);
  }

  Spot spot_from(Node* from, const std::string& path, int& followed) {
    require(!path.empty(), ENOENT);
    std::vector<std::string> parts;
    for (size_t at = 0; at < path.size();) {
      size_t end = std::min(path.find('/', at), path.size());
      if (end > at) parts.push_back(path.substr(at, end - at));
      at = end + 1;
    }
    if (path[0] == '/') from = root_;
    if (parts.empty()) return {from, "", false};
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      Node* next = step(from, parts[i]);
      require(next != nullptr, ENOENT);
      if (next->is(S_IFLNK)) next = through(from, next, followed);
      from = next;
      require(from->is(S_IFDIR), ENOTDIR);
    }
    return {from, parts.back(), path.back() == '/'};
  }
  Spot spot(const std::string& path) {
    int followed = 0;
    return spot_from(working_directory_, path, followed);
  }
  Node* through(Node* from, Node* link, int& followed) {
    require(++followed <= 40, ELOOP);
    return must_find(spot_from(from, link->bytes, followed), true, followed);
  }
  Node* must_find(const Spot& s, bool follow, int& followed) {
    Node* node = step(s.parent, s.name);
    require(node != nullptr, ENOENT);
    if (node->is(S_IFLNK) && (follow || s.slash)) node = through(s.parent, node, followed);
    require(!s.slash || node->is(S_IFDIR), ENOTDIR);
    return node;
  }
  Node* find(const std::string& path, bool follow = true) {
    int followed = 0;
    return must_find(spot_from(working_directory_, path, followed), follow, followed);
  }

  // --- calls

  std::string call(const Call& c) {
    switch (c.kind) {
      case Kind::kOpen:
        return open(c);
      case Kind::kStat:
        return ok(describe(*find(c.path)));
      case Kind::kLstat:
        return ok(describe(*find(c.path, false)));
      case Kind::kAccess:
        require((c.flags & ~7) == 0, EINVAL);
        return find(c.path), ok();
      case Kind::kTruncate:
        return truncate(c);
      case Kind::kMkdir:
        return make_name(c.path, S_IFDIR | (c.mode & 01777), "");
      case Kind::kMknod:
        return make_name(c.path, c.mode, "");
      case Kind::kSymlink:
        require(!c.other.empty(), ENOENT);
        return make_name(c.path, S_IFLNK | 0777, c.other);
      case Kind::kUnlink:
        return unlink(spot(c.path));
      case Kind::kRmdir:
        return rmdir(spot(c.path));
      case Kind::kRename:
        return rename(c);
      case Kind::kLink:
        return link(c);
      case Kind::kReadlink: {
        Node* node = find(c.path, false);
        require(node->is(S_IFLNK), EINVAL);
        return ok(node->bytes);
      }
      case Kind::kChmod: {
        Node* node = find(c.path);
        node->mode = (node->mode & S_IFMT) | c.mode;
        return ok();
      }
      case Kind::kChown:
        return chown(find(c.path, false), c.mode);
      case Kind::kList:
        return list(c.path);
      default:
        return by_handle(c);
    }
  }

  std::string make_name(const std::string& path, uint32_t mode, const std::string& target) {
    Spot s = spot(path);
    require(s.ordinary(), EEXIST);
    Node* there = step(s.parent, s.name);
    require(there == nullptr, EEXIST);
    require(!s.parent->removed(), ENOENT);
    require(!s.slash || S_ISDIR(mode), ENOENT);
    make(s.parent, s.name, mode, target);
    return ok();
  }

  std::string link(const Call& c) {
    Node* node = find(c.path, (c.flags & AT_SYMLINK_FOLLOW) != 0);
    Spot s = spot(c.other);
    require(s.ordinary() && step(s.parent, s.name) == nullptr, EEXIST);
    require(!s.parent->removed() && !s.slash, ENOENT);
    require(!node->is(S_IFDIR), EPERM);
    s.parent->names[s.name] = node;
    ++node->links;
    return ok();
  }

  std::string unlink(const Spot& s) {
    require(s.ordinary(), EISDIR);
    Node* node = step(s.parent, s.name);
    require(node != nullptr, ENOENT);
    require(!node->is(S_IFDIR), EISDIR);
    require(!s.slash, ENOTDIR);
    s.parent->names.erase(s.name);
    --node->links;
    return ok();
  }

  std::string rmdir(const Spot& s) {
    require(!s.name.empty(), EBUSY);
    require(s.name != ".", EINVAL);
    require(s.name != "..", ENOTEMPTY);
    Node* node = step(s.parent, s.name);
    require(node != nullptr, ENOENT);
    require(node->is(S_IFDIR), ENOTDIR);
    require(node->names.empty(), ENOTEMPTY);
    s.parent->names.erase(s.name);
    node->links = 0;
    return ok();
  }

  std::string rename(const Call& c) {
    const bool no_replace = (c.flags & RENAME_NOREPLACE) != 0, exchange = (c.flags & RENAME_EXCHANGE) != 0;
    require(!(no_replace && exchange), EINVAL);
    Spot from = spot(c.path), to = spot(c.other);
    require(from.ordinary(), EBUSY);
    require(to.ordinary(), no_replace ? EEXIST : EBUSY);
    Node* source = step(from.parent, from.name);
    require(source != nullptr, ENOENT);
    Node* target = step(to.parent, to.name);
    require(!to.parent->removed(), ENOENT);
    require(!(target && no_replace), EEXIST);
    require(target || !exchange, ENOENT);
    if (exchange) require(!to.slash || target->is(S_IFDIR), ENOTDIR);
    if (!source->is(S_IFDIR)) require(!from.slash && (exchange || !to.slash), ENOTDIR);
    require(!below(to.parent, source), EINVAL);
    require(!(target && below(from.parent, target)), exchange ? EINVAL : ENOTEMPTY);
    if (source == target) return ok();
    if (target && !exchange) {
      require(target->is(S_IFDIR) || !source->is(S_IFDIR), ENOTDIR);
      require(source->is(S_IFDIR) || !target->is(S_IFDIR), EISDIR);
      require(target->names.empty(), ENOTEMPTY);
      target->links = target->is(S_IFDIR) ? 0 : target->links - 1;
    }
    from.parent->names.erase(from.name);
    to.parent->names[to.name] = source;
    source->parent = to.parent;
    if (exchange) {
      from.parent->names[from.name] = target;
      target->parent = from.parent;
    }
    return ok();
  }

  std::string chown(Node* node, uint32_t id) {
    node->uid = node->gid = id;
    if (node->is(S_IFDIR)) return ok();
    node->mode &= ~uint32_t{S_ISUID};
    if ((node->mode & S_IXGRP) != 0) node->mode &= ~uint32_t{S_ISGID};
    return ok();
  }

  std::string list(const std::string& path) {
    Node* node = find(path);
    require(node->is(S_IFDIR), ENOTDIR);
    require(!node->removed(), ENOENT);
    std::string names;
    for (auto& [name, entry] : node->names) names += name + " " + std::to_string(entry->mode >> 12) + ",";
    return ok(names);
  }

  std::string truncate(const Call& c) {
    require(c.offset >= 0, EINVAL);
    Node* node = find(c.path);
    require(!node->is(S_IFDIR), EISDIR);
    require(node->is(S_IFREG), EINVAL);
    node->bytes.resize(static_cast<size_t>(c.offset));
    return ok();
  }

  std::string open(const Call& c) {
    Node* node = (c.flags & O_CREAT) != 0 ? find_or_create(c) : find(c.path, (c.flags & O_NOFOLLOW) == 0);
    const bool writes = (c.flags & O_ACCMODE) != O_RDONLY || (c.flags & O_TRUNC) != 0;
    if ((c.flags & O_DIRECTORY) != 0) require(node->is(S_IFDIR), ENOTDIR);
    if ((c.flags & O_PATH) == 0) {
      require(!node->is(S_IFLNK), ELOOP);
      require(!node->is(S_IFDIR) || !(writes || (c.flags & O_CREAT) != 0), EISDIR);
      require(node->is(S_IFDIR) || node->is(S_IFREG), ENXIO);
      if ((c.flags & O_TRUNC) != 0) node->bytes.clear();
    }
    handles_[static_cast<size_t>(c.slot)] = Handle{node, c.flags};
    return ok();
  }

  Node* find_or_create(const Call& c) {
    int followed = 0;
    Spot s = spot_from(working_directory_, c.path, followed);
    for (;;) {
      require(!(s.slash && s.ordinary()), EISDIR);
      Node* node = step(s.parent, s.name);
      if (node == nullptr) {
        require(!s.parent->removed(), ENOENT);
        return make(s.parent, s.name, S_IFREG | (c.mode & 0777));
      }
      require((c.flags & O_EXCL) == 0, EEXIST);
      if (!node->is(S_IFLNK)) return node;
      require((c.flags & O_NOFOLLOW) == 0, ELOOP);
      require(++followed <= 40, ELOOP);
      s = spot_from(s.parent, node->bytes, followed);
    }
  }

  std::string by_handle(const Call& c) {
    auto& handle = handles_[static_cast<size_t>(c.slot)];
    if (!handle) return "no handle";
    Node& node = *handle->node;
    const bool path_only = (handle->flags & O_PATH) != 0;
    const bool readable = !path_only && (handle->flags & O_ACCMODE) != O_WRONLY;
    const bool writable = !path_only && (handle->flags & O_ACCMODE) != O_RDONLY;
    switch (c.kind) {
      case Kind::kClose:
        return handle.reset(), ok();
      case Kind::kFstat:
        return ok(describe(node));
      case Kind::kFchmod:
        require(!path_only, EBADF);
        node.mode = (node.mode & S_IFMT) | c.mode;
        return ok();
      case Kind::kRead: {
        require(readable, EBADF);
        require(!node.is(S_IFDIR), EISDIR);
        auto at = std::min(static_cast<size_t>(handle->position), node.bytes.size());
        std::string got = node.bytes.substr(at, c.length);
        handle->position += static_cast<int64_t>(got.size());
        return ok(got);
      }
      case Kind::kWrite:
        require(writable, EBADF);
        write_at(*handle, handle->position, c, true);
        return ok(std::to_string(c.length));
      case Kind::kPwrite:
        require(c.offset >= 0, EINVAL);
        require(writable, EBADF);
        write_at(*handle, c.offset, c, false);
        return ok(std::to_string(c.length));
      case Kind::kFtruncate:
        require(c.offset >= 0, EINVAL);
        require(!path_only, EBADF);
        require(writable, EINVAL);
        node.bytes.resize(static_cast<size_t>(c.offset));
        return ok();
      case Kind::kSeek: {
        if (node.is(S_IFDIR)) return "not compared";
        require(!path_only, EBADF);
        require(c.flags == SEEK_SET || c.flags == SEEK_CUR || c.flags == SEEK_END, EINVAL);
        int64_t base = c.flags == SEEK_CUR   ? handle->position
                       : c.flags == SEEK_END ? static_cast<int64_t>(node.bytes.size())
                                             : 0;
        require(base + c.offset >= 0, EINVAL);
        handle->position = base + c.offset;
        return ok(std::to_string(handle->position));
      }
      default:
        CHECK(false);
    }
  }

  static void write_at(Handle& handle, int64_t offset, const Call& c, bool moves) {
    std::string& bytes = handle.node->bytes;
    if (c.length == 0) return;
    auto at = (handle.flags & O_APPEND) != 0 ? bytes.size() : static_cast<size_t>(offset);
    if (bytes.size() < at + c.length) bytes.resize(at + c.length);
    bytes.replace(at, c.length, c.length, c.fill);
    if (moves) handle.position = static_cast<int64_t>(at + c.length);
  }

  // --- showing

  static std::string describe(const Node& node) {
    return GuestCallee::describe_attributes(node.mode, node.uid, node.gid,
                                            static_cast<uint64_t>(node.shown_links()), node.bytes.size());
  }
  static void describe_below(Node* directory, const std::string& path,
                             std::map<std::string, std::string>& found,
                             std::map<Node*, std::string>& first_names) {
    for (auto& [entry, node] : directory->names) {
      std::string name = path + "/" + entry, text = describe(*node);
      if (node->is(S_IFREG)) text += " bytes " + node->bytes;
      if (node->is(S_IFLNK)) text += " to " + node->bytes;
      if (!node->is(S_IFDIR)) text += " is " + first_names.try_emplace(node, name).first->second;
      found[name] = text;
      if (node->is(S_IFDIR)) describe_below(node, name, found, first_names);
    }
  }

  std::deque<Node> nodes_;  // none is ever taken away
  Node* root_;
  Node* working_directory_;
  std::array<std::optional<Handle>, kSlots> handles_;
};

}  // namespace reprise::fs
