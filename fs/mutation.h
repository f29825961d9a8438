// Mutation: what each operation does to a tree. Inside fs/ only: everyone else calls Head::apply.
//
// Each function has two halves: first it validates everything the operation claims and answers an errno;
// below that line nothing can fail.
#pragma once

#include "fs/tree.h"

namespace reprise::fs {

class Mutation {
 public:
  // Whether the names of an operation are known to be as it claims.
  enum class Names : bool { kUnknown, kResolved };
  explicit Mutation(Head& head, Names names = Names::kUnknown) : head_(head), names_(names) {}

  // Loads every node that the operation will look at or change, so that nothing below can fail for want of
  // one. For a tree that was opened lazily.
  Outcome<void> load_for(const Operation& operation) const;
  Outcome<void> apply(const Operation& operation);
  Outcome<void> add_unlinked(const Create& operation);

 private:
  Outcome<void> operator()(const Create& op);
  Outcome<void> operator()(const Link& op);
  Outcome<void> operator()(const Unlink& op);
  Outcome<void> operator()(const Rmdir& op);
  Outcome<void> operator()(const Rename& op);
  Outcome<void> operator()(const Write& op);
  Outcome<void> operator()(const Truncate& op);
  Outcome<void> operator()(const Allocate& op);
  Outcome<void> operator()(const CopyRange& op);
  Outcome<void> operator()(const SetAttributes& op);
  Outcome<void> operator()(const SetXattr& op);
  Outcome<void> operator()(const RemoveXattr& op);
  Outcome<void> operator()(const Barrier& op);
  Outcome<void> operator()(const ClaimPrefix& op);
  Outcome<void> operator()(const SetLimits& op);

  Outcome<void> load_inode(InodeId id) const;
  Outcome<void> load_names(InodeId directory) const;
  Outcome<void> load_bytes(InodeId file, uint64_t offset, uint64_t length) const;

  Outcome<const Inode*> find(InodeId id) const;
  Outcome<const Inode*> find_file(InodeId id) const;
  // A directory that still has a name.
  Outcome<const Inode*> find_directory(InodeId id) const;
  Outcome<void> check_new_inode(const Create& op) const;
  Outcome<void> check_absent(InodeId directory, std::string_view name) const;
  // The directory has this name and it means this inode.
  Outcome<void> check_present(InodeId directory, std::string_view name, InodeId inode) const;
  Outcome<bool> lies_below(InodeId directory, InodeId ancestor) const;
  Outcome<void> check_rename(const Rename& op, const Inode& moved, const Inode* replaced) const;

  Inode& own(InodeId id);
  Inode& own_changed(InodeId id, Timestamp time);  // mtime and ctime set
  void fill_inode(const Create& op, uint32_t nlink);
  bool add_entry(Inode& directory, std::string_view name, InodeId inode, uint32_t mode);
  void remove_entry(Inode& directory, std::string_view name, InodeId inode, uint32_t mode);
  void set_parent(InodeId id, Inode& inode, InodeId old_parent, InodeId new_parent);
  // One name less; what has none left is noted.
  void drop_link(InodeId id, Timestamp time);
  // Runs change on a file whose blocks are accounted before and after.
  template <class Change>
  void change_content(InodeId id, Timestamp time, const Change& change);

  Head& head_;
  const Names names_;
};

}  // namespace reprise::fs
