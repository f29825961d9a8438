// Tree: one version of the whole filesystem. Head: the version being changed. View: an immutable, pinned
// version.
//
// A tree is a root pointer to reference-counted nodes (fs/node.h) that versions share. Taking a view or
// forking a head copies one pointer; a node reached by nobody else is changed in place, any other is copied
// on the way down (docs/filesystem.md).
//
// Ownership: every object here owns a reference to its nodes; moving is cheap, copying is view(). Threads: a
// Head has one writer at a time and no readers meanwhile (fs/filesystem.h has the lock); a View may be read
// from any thread without one, and views of one head may be taken, read and dropped on different threads.
//
// Not here: names with more than one part, permissions, open files, the journal.
//
//   Head head = Head::create(time);
//   head.apply(Create{…});            // the one way to change it, for origin and replayer alike
//   View before = head.view();        // O(1)
#pragma once

#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "fs/errno.h"
#include "fs/node.h"
#include "fs/operation.h"
#include "fs/types.h"

namespace reprise::fs {

class Source;
struct LazyNode;
class NodeSource;

// What a tree holds in all; exact. Inodes without links are counted while they exist.
struct Usage {
  uint64_t inodes = 0;
  uint64_t blocks = 0;  // of kBlockSize; small files' bytes count as one block, a source's as if held
};

// Reading, common to Head and View.
class Tree {
 public:
  Outcome<Attributes> stat(InodeId inode) const;                           // ENOENT
  Outcome<Dentry> lookup(InodeId directory, std::string_view name) const;  // ENOENT, ENOTDIR; no "." or ".."
  Outcome<InodeId> parent_of(InodeId directory) const;  // ENOENT, ENOTDIR; the root's is itself
  // Up to into.size() bytes from offset; fewer only at the end of the file. EISDIR, EINVAL (not a regular
  // file); EIO and EACCES of a file that rests on a source (fs/sourced_file.h), for which this may wait.
  Outcome<size_t> read(InodeId inode, uint64_t offset, ByteSpan into) const;
  // The same without waiting: EREMOTEIO where some of the bytes are a source's.
  Outcome<size_t> read_held(InodeId inode, uint64_t offset, ByteSpan into) const;
  // Start of the first data (or hole, the end of the file being one) at or after offset; in blocks. ENXIO
  // past the end.
  Outcome<uint64_t> seek_data(InodeId inode, uint64_t offset) const;
  Outcome<uint64_t> seek_hole(InodeId inode, uint64_t offset) const;
  Outcome<std::string_view> read_link(InodeId inode) const;  // EINVAL; valid while this version is
  // Entries after cookie (0: from the start) in cookie order, until visit says false. No "." or "..".
  Outcome<void> read_directory(InodeId directory, uint64_t cookie,
                               const std::function<bool(const Dentry&)>& visit) const;
  Outcome<ByteView> get_xattr(InodeId inode,
                              std::string_view name) const;  // ENODATA; valid while this version is
  Outcome<void> list_xattrs(InodeId inode,
                            const std::function<void(std::string_view name, ByteView value)>& visit) const;
  // Every inode in order of id, those without links included; all of them only of a tree that is loaded.
  void for_each_inode(const std::function<void(const Attributes&)>& visit) const;

  // Of a tree that was opened lazily (View::open): loads what has not been. EIO if that cannot be; everything
  // that can be has then not been loaded, either. All else here loads what it needs, and answers EIO or finds
  // nothing where it cannot.
  Outcome<void> load_all() const;
  Outcome<void> load_names() const;  // inodes, directories and symlinks, no bytes of files
  Outcome<void> load_table() const;  // its inner nodes only
  Outcome<void> load_bytes(InodeId file, uint64_t offset,
                           uint64_t length) const;  // the blocks with these bytes
  // Where it loads from, for as long as there is something that does; of a tree of more than a page.
  std::weak_ptr<NodeSource> lazy_source() const;
  bool partial() const { return partial_; }  // was it opened lazily?

  Usage usage() const { return usage_; }
  // The volume's, as the last SetLimits said. Nothing here enforces them: that is the facade's.
  const SetLimits& limits() const { return limits_; }
  // State digest of exactly this version: what equal histories agree on (docs/data-model.md). Does not change
  // the tree; costs O(what changed since Head::settle).
  Digest128 digest() const;
  // The same, from the bytes alone: every block, name and inode hashed again. To check digest().
  Digest128 recompute_digest() const;

  const Node* root() const { return root_; }  // for snapshot/; valid while this object is unchanged
  const Inode* find(InodeId inode) const;     // the same, for fs/ alone; null if absent

  // Walks every node and every cross-reference (links counted, parents right, no directory unreachable, sums
  // right). The empty string, or what is wrong and where. Never trusts what it walks.
  std::string check_invariants() const;

 protected:
  enum class What { kNames, kAll };
  Outcome<void> load_contents(What what) const;

  Tree() = default;
  Tree(Node* root, Usage usage, const SetLimits& limits, bool partial = false)
      : root_(root), usage_(usage), limits_(limits), partial_(partial) {}
  ~Tree();
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;

  Node* root_ = nullptr;  // of the inode table; owned reference
  Usage usage_;
  SetLimits limits_;
  bool partial_ = false;
};

class View : public Tree {
 public:
  View() = default;  // of nothing; may only be assigned to
  View(View&& other) noexcept;
  View& operator=(View&& other) noexcept;
  View share() const;  // another reference to the same version; O(1)

  // Takes over a reference to nodes that somebody built (snapshot/). Refused with the words of
  // check_invariants() when they are no tree.
  static std::expected<View, std::string> adopt(Node* root);
  // The tree that `root` (taken over) stands for, of which nothing but what is touched is loaded
  // (fs/lazy_node.h). What it holds in all is taken for granted. EIO where its root directory cannot be
  // loaded.
  static Outcome<View> open(LazyNode* root, Usage usage, const SetLimits& limits);

 private:
  friend class Head;
  View(Node* root, Usage usage, const SetLimits& limits = {}, bool partial = false)
      : Tree(root, usage, limits, partial) {}
};

class Head : public Tree {
 public:
  // A tree with nothing but a root directory of mode 0755, owner 0:0 and these times.
  static Head create(Timestamp time);
  // A head that starts at a view; the view is not affected by what happens to the head. O(1).
  explicit Head(const View& view);
  Head(Head&& other) noexcept;
  Head& operator=(Head&& other) noexcept;

  // This version, pinned. O(1), nothing copied.
  View view() const;

  // Applies one operation whole, or says why it cannot be applied and changes nothing. For an operation that
  // a facade made on this very tree it cannot fail; for one that came from outside it names the first thing
  // that is not as the operation claims: ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL, ESTALE (another
  // inode under that name), ELOOP (a directory into itself), ENAMETOOLONG, EFBIG, EMLINK.
  Outcome<void> apply(const Operation& operation);

  // The same for an operation whose names were looked up in this very version, under the same lock: they are
  // what it claims, and are not looked up again.
  Outcome<void> apply_resolved(const Operation& operation);

  // Gives a file without bytes the size and the bytes that the source has under the key. No operation: for a
  // tree in the making, from which a history then begins. EINVAL, EISDIR, ENOENT, EFBIG.
  Outcome<void> rest_on(InodeId file, std::shared_ptr<Source> source, uint64_t size, ByteView key);

  // An inode that no name leads to (O_TMPFILE), to be linked later. Not part of the digest.
  Outcome<void> add_unlinked(const Create& inode_only);

  // Inodes that lost their last name since the last call. They stay readable and writable until
  // remove_unlinked.
  std::vector<InodeId> take_unlinked();
  std::optional<InodeId> take_one_unlinked();  // one of them, without allocating
  // Forgets an inode without links; nothing happens if it has links (again) or is not there.
  void remove_unlinked(InodeId inode);

  // Lets go of pages of inodes with all that belongs to them, from that of `from` on and around, until about
  // so many bytes are free: of those that no View shares and that are in `kept`, too, from whose source they
  // are loaded again when they are touched. `kept` has been opened lazily, and nothing of it but the table
  // been loaded. What has to be released for the memory to be free, without a lock, is added to `dropped`.
  // Returns the bytes; `from` becomes where to go on.
  uint64_t evict(const View& kept, uint64_t bytes, InodeId& from, std::vector<Node*>& dropped);

  // Brings all sums up to date, so that digest() is O(1) until the next change. O(changes since the last
  // settle).
  void settle();

 private:
  Head(Node* root, Usage usage) : Tree(root, usage, {}) {}
  friend class Mutation;
  std::vector<InodeId> unlinked_;
};

// The content digest: what a directory or archive can be compared by. Paths, types, permission bits, link
// targets, device numbers and file bytes below `top`; no owners, times, inode numbers or hard-link structure.
Outcome<Digest128> content_digest(const Tree& tree, InodeId top = kRootInode);

}  // namespace reprise::fs
