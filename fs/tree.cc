#include "fs/tree.h"

#include <algorithm>
#include <utility>

#include "fs/directory.h"
#include "fs/file_content.h"
#include "fs/lazy_node.h"
#include "fs/mutation.h"
#include "fs/own.h"
#include "fs/sourced_file.h"
#include "fs/table.h"
#include "fs/xattrs.h"

namespace reprise::fs {
namespace {

Outcome<const Inode*> find_directory(const Node* root, InodeId id) {
  const Inode* inode = table::find(root, id);
  if (inode == nullptr) return absent(ENOENT);
  if (!S_ISDIR(inode->mode)) return errno_of(ENOTDIR);
  return inode;
}

Outcome<const Inode*> find_file(const Node* root, InodeId id) {
  const Inode* inode = table::find(root, id);
  if (inode == nullptr) return absent(ENOENT);
  if (S_ISDIR(inode->mode)) return errno_of(EISDIR);
  if (!S_ISREG(inode->mode)) return errno_of(EINVAL);
  return inode;
}

Dentry dentry_of(const directory::Entry& entry) {
  return {entry.name, entry.inode, entry.type, entry.key};
}

}  // namespace

Tree::~Tree() {
  release(root_);
}

Outcome<Attributes> Tree::stat(InodeId id) const {
  Outcome<Attributes> attributes;
  if (const Inode* inode = find(id))
    fill_attributes(*attributes, id, *inode);
  else
    attributes = absent(ENOENT);
  return attributes;
}

const Inode* Tree::find(InodeId id) const {
  return table::find(root_, id);
}

Outcome<Dentry> Tree::lookup(InodeId id, std::string_view name) const {
  const Inode* inode = TRY(find_directory(root_, id));
  auto entry = directory::find(inode->content, name);
  if (!entry) return absent(ENOENT);
  return dentry_of(*entry);
}

Outcome<InodeId> Tree::parent_of(InodeId id) const {
  const Inode* inode = TRY(find_directory(root_, id));
  return InodeId{inode->rdev_or_parent};
}

Outcome<size_t> Tree::read(InodeId id, uint64_t offset, ByteSpan into) const {
  const Inode* inode = TRY(find_file(root_, id));
  return file_content::read(*inode, offset, into);
}

Outcome<size_t> Tree::read_held(InodeId id, uint64_t offset, ByteSpan into) const {
  const Inode* inode = TRY(find_file(root_, id));
  return file_content::read_held(*inode, offset, into);
}

Outcome<uint64_t> Tree::seek_data(InodeId id, uint64_t offset) const {
  const Inode* inode = TRY(find_file(root_, id));
  if (offset >= inode->size) return errno_of(ENXIO);
  uint64_t found = TRY(file_content::next_data(*inode, offset));
  if (found >= inode->size) return errno_of(ENXIO);
  return found;
}

Outcome<uint64_t> Tree::seek_hole(InodeId id, uint64_t offset) const {
  const Inode* inode = TRY(find_file(root_, id));
  if (offset >= inode->size) return errno_of(ENXIO);
  return file_content::next_hole(*inode, offset);
}

Outcome<std::string_view> Tree::read_link(InodeId id) const {
  const Inode* inode = table::find(root_, id);
  if (inode == nullptr) return absent(ENOENT);
  if (!S_ISLNK(inode->mode) || inode->content == nullptr) return errno_of(EINVAL);
  return as_text(static_cast<const SmallFile*>(inode->content)->view());
}

Outcome<void> Tree::read_directory(InodeId id, uint64_t cookie,
                                   const std::function<bool(const Dentry&)>& visit) const {
  const Inode* inode = TRY(find_directory(root_, id));
  directory::for_each(TRY(try_loaded(inode->content)), cookie,
                      [&](const directory::Entry& entry) { return visit(dentry_of(entry)); });
  return {};
}

Outcome<ByteView> Tree::get_xattr(InodeId id, std::string_view name) const {
  const Inode* inode = table::find(root_, id);
  if (inode == nullptr) return absent(ENOENT);
  auto value = xattrs::find(inode->xattrs, name);
  if (!value) return errno_of(ENODATA);
  return *value;
}

Outcome<void> Tree::list_xattrs(InodeId id,
                                const std::function<void(std::string_view, ByteView)>& visit) const {
  const Inode* inode = table::find(root_, id);
  if (inode == nullptr) return absent(ENOENT);
  xattrs::for_each(inode->xattrs, [&](std::string_view name, ByteView value) {
    visit(name, value);
    return true;
  });
  return {};
}

void Tree::for_each_inode(const std::function<void(const Attributes&)>& visit) const {
  table::for_each(root_, [&](InodeId id, const Inode& inode) {
    Attributes attributes;
    fill_attributes(attributes, id, inode);
    visit(attributes);
    return true;
  });
}

Outcome<void> Tree::load_all() const {
  return load_contents(What::kAll);
}

Outcome<void> Tree::load_names() const {
  return load_contents(What::kNames);
}

Outcome<void> Tree::load_bytes(InodeId file, uint64_t offset, uint64_t length) const {
  const Inode* inode = table::find(root_, file);
  if (inode == nullptr) return absent(ENOENT);
  if (length == 0) return file_content::load(inode->content, 0, 0);
  // Whether the range lies within what a file may have is for others to say.
  const uint64_t last = std::min(offset, kFileSizeMax) + std::min(length, kFileSizeMax) - 1;
  return file_content::load(inode->content, offset / kBlockSize, last / kBlockSize + 1);
}

Outcome<void> Tree::load_contents(What what) const {
  take_load_failure();
  Outcome<void> done;
  table::for_each(root_, [&](InodeId, const Inode& inode) {
    if (what == What::kAll || !S_ISREG(inode.mode))
      done = file_content::load(inode.content, 0, file_content::kAllBlocks);
    return done.has_value();
  });
  if (auto failure = take_load_failure()) return std::unexpected(*failure);
  return done;
}

Digest128 Tree::digest() const {
  return table::total(root_);
}

Digest128 Tree::recompute_digest() const {
  Digest128 sum;
  table::for_each(root_, [&](InodeId id, const Inode& inode) {
    if (inode.nlink == 0) return true;
    Inode copy = inode;
    copy.sum = {};
    if (S_ISDIR(inode.mode)) {
      directory::for_each(inode.content, 0, [&](const directory::Entry& entry) {
        copy.sum += dentry_hash(entry.name, entry.type, entry.inode);
        return true;
      });
    } else {
      file_content::for_each_block(inode, [&](uint64_t index, ByteView block) {
        copy.sum += block_hash(index, block);
        return true;
      });
      if (is_sourced(inode.content)) copy.sum = sourced::sum(as_sourced(inode.content), copy.sum);
    }
    sum += inode_hash(id, copy);
    return true;
  });
  return sum;
}

// --- View

View::View(View&& other) noexcept
    : Tree(std::exchange(other.root_, nullptr), std::exchange(other.usage_, {}), other.limits_,
           other.partial_) {}

View& View::operator=(View&& other) noexcept {
  std::swap(root_, other.root_);
  std::swap(usage_, other.usage_);
  std::swap(limits_, other.limits_);
  std::swap(partial_, other.partial_);
  return *this;
}

View View::share() const {
  return View(retain(root_), usage_, limits_, partial_);
}

Outcome<View> View::open(LazyNode* root, Usage usage, const SetLimits& limits) {
  const Node* top = fs::load(*root);
  View view(retain(const_cast<Node*>(top)), usage, limits, true);
  release(root);
  if (top == nullptr) return absent(EIO);
  const Inode* directory = table::find(top, kRootInode);
  if (directory == nullptr || !S_ISDIR(directory->mode) || directory->rdev_or_parent != kRootInode.value)
    return absent(EIO);
  return view;
}

// --- Head

Head Head::create(Timestamp time) {
  Head head(nullptr, Usage{.inodes = 1, .blocks = 0});
  Inode* root = table::insert(head.root_, kRootInode);
  root->mode = S_IFDIR | 0755;
  root->nlink = 2;
  root->rdev_or_parent = kRootInode.value;
  root->set_atime(time);
  root->set_mtime(time);
  root->set_ctime(time);
  return head;
}

Head::Head(const View& view) : Tree(retain(view.root_), view.usage_, view.limits_, view.partial_) {}

Head::Head(Head&& other) noexcept
    : Tree(std::exchange(other.root_, nullptr), std::exchange(other.usage_, {}), other.limits_,
           other.partial_),
      unlinked_(std::move(other.unlinked_)) {}

Head& Head::operator=(Head&& other) noexcept {
  std::swap(root_, other.root_);
  std::swap(usage_, other.usage_);
  std::swap(limits_, other.limits_);
  std::swap(partial_, other.partial_);
  std::swap(unlinked_, other.unlinked_);
  return *this;
}

View Head::view() const {
  return View(retain(root_), usage_, limits_, partial_);
}

Outcome<void> Head::apply(const Operation& operation) {
  if (partial_) TRY(Mutation(*this).load_for(operation));
  return Mutation(*this).apply(operation);
}

Outcome<void> Head::apply_resolved(const Operation& operation) {
  if (partial_) TRY(Mutation(*this).load_for(operation));
  return Mutation(*this, Mutation::Names::kResolved).apply(operation);
}

Outcome<void> Head::rest_on(InodeId id, std::shared_ptr<Source> source, uint64_t size, ByteView key) {
  const Inode* found = TRY(find_file(root_, id));
  if (found->content != nullptr || found->size != 0 || size == 0) return errno_of(EINVAL);
  if (key.empty() || key.size() > SourcedFile::kKeyMax) return errno_of(EINVAL);
  if (size > kFileSizeMax) return errno_of(EFBIG);

  Inode& inode = table::own(root_, id);
  SourcedFile* file = SourcedFile::create(std::move(source), size, key);
  inode.content = file;
  inode.size = size;
  inode.blocks = static_cast<uint32_t>(file->blocks());
  usage_.blocks += inode.blocks;
  return {};
}

Outcome<void> Head::add_unlinked(const Create& inode_only) {
  if (partial_) TRY(Mutation(*this).load_for(inode_only));
  return Mutation(*this).add_unlinked(inode_only);
}

std::vector<InodeId> Head::take_unlinked() {
  return std::exchange(unlinked_, {});
}

std::optional<InodeId> Head::take_one_unlinked() {
  if (unlinked_.empty()) return std::nullopt;
  InodeId inode = unlinked_.back();
  unlinked_.pop_back();
  return inode;
}

void Head::remove_unlinked(InodeId id) {
  const Inode* inode = table::find(root_, id);
  if (inode == nullptr) take_load_failure();  // then it stays; nobody can reach it
  if (inode == nullptr || inode->nlink > 0) return;
  usage_.inodes--;
  usage_.blocks -= inode->blocks;
  table::erase(root_, id);
}

void Head::settle() {
  table::settle(root_);
}

}  // namespace reprise::fs
