// Transition: the operations that lead from one tree of a volume to another, or to some of what another has.
// Whoever has them recorded brings back a state of the past, or records what two lines of history come to
// when they are put together.
//
// Not the fewest there could be: what changes its place goes by way of a hidden directory, which is gone in
// the end, so that no order of the changes has to be found. Inodes that are in both trees stay what they are;
// those that only `wanted` has get new ids, since no id is ever used twice. docs/filesystem.md says how it
// works.
//
// Pure, but for where the operations go. Cost: what changes. Both trees are loaded (Tree::load_all) before,
// and stay what they are meanwhile. Threads: as the trees.
//
//   Changes all = all_changes(have, wanted);
//   Transition(have, wanted, all).make(target);
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "fs/diff.h"

namespace reprise::fs {

// Gives an inode mode, owner and times of another, or of another version of it.
SetAttributes setting_all(InodeId inode, const Attributes& from);

// A name in a directory of either tree: what it means in the one, and is to mean in the other.
struct NameToChange {
  InodeId directory;
  std::string name;
  InodeId before, after;  // zero: nothing
};

// An inode of both trees.
struct InodeToChange {
  InodeId inode;
  bool content = false, xattrs = false;  // as `wanted` has them
  Attributes attributes;                 // mode, owner and times that it is to have
};

struct TreeChanges {
  std::vector<NameToChange> names;  // of directories that come or go all of them
  std::vector<InodeToChange> inodes;
};

// Everything that differs.
TreeChanges all_changes(const Tree& have, const Tree& wanted);

// Takes the operations, each of which is true of `have` as those before it left that.
class TransitionTarget {
 public:
  virtual InodeId new_inode(InodeId wanted) = 0;  // for what is called so in `wanted`
  virtual void apply(const Operation& operation) = 0;

 protected:
  ~TransitionTarget() = default;
};

class Transition {
 public:
  // All three must outlive this.
  Transition(const Tree& have, const Tree& wanted, const TreeChanges& changes);

  // About what the operations take, encoded.
  uint64_t bytes() const;
  // Once. EIO and the like where a source of `wanted` cannot be read; some operations are made by then.
  Outcome<void> make(TransitionTarget& target);

 private:
  struct Links {
    uint64_t removed = 0, added = 0;
    std::vector<std::string> staged;  // what its names are called in the hidden directory
  };
  bool is_new(InodeId inode) const;
  bool is_staged(InodeId inode) const;
  InodeId real(InodeId inode) const;
  void open_staging();
  void take_away(const NameToChange& name);
  void remove_directories();
  void place_all();
  void place(const NameToChange& name);
  void create(InodeId directory, const NameToChange& name);
  Outcome<void> fill(InodeId inode, bool fresh);
  Outcome<void> write(InodeId inode, uint64_t offset, uint64_t end);
  void set_xattrs(InodeId inode, bool fresh);
  void set_attributes();
  void apply(const Operation& operation);
  void touch(InodeId inode) { touched_.insert(inode); }

  const Tree &have_, &wanted_;
  const TreeChanges& changes_;
  TransitionTarget* target_ = nullptr;
  std::unordered_map<InodeId, Links> links_;
  std::unordered_map<InodeId, std::vector<const NameToChange*>> names_in_;
  std::vector<const NameToChange*> directories_gone_;  // those that are to be removed, where they lie
  InodeId staging_;
  std::string staging_name_;
  uint64_t staged_ = 0;
  std::unordered_map<InodeId, InodeId> made_;  // new inodes, by what `wanted` calls them
  std::vector<InodeId> made_in_order_;
  std::unordered_set<InodeId> touched_;  // of `have`
  Bytes piece_;
};

}  // namespace reprise::fs
