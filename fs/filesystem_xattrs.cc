// The facade's calls on extended attributes (xattr(7)). POSIX ACLs (system.posix_acl_*) are kept as bytes.
#include <unistd.h>

#include "fs/filesystem.h"
#include "fs/filesystem_call.h"
#include "fs/permission.h"

namespace reprise::fs {
namespace {

enum class Namespace { kUser, kTrusted, kSecurity, kSystem, kOther };

Namespace namespace_of(std::string_view name) {
  for (auto [prefix, space] : {std::pair<std::string_view, Namespace>{"user.", Namespace::kUser},
                               {"trusted.", Namespace::kTrusted},
                               {"security.", Namespace::kSecurity},
                               {"system.", Namespace::kSystem}})
    if (name.starts_with(prefix)) return space;
  return Namespace::kOther;
}

bool is_acl(std::string_view name) {
  return name == "system.posix_acl_access" || name == "system.posix_acl_default";
}

// Does any filesystem know such a name? Linux asks only after it has looked at permissions.
Outcome<void> check_known(std::string_view name) {
  if (is_acl(name)) return {};
  Namespace space = namespace_of(name);
  if (space == Namespace::kOther || space == Namespace::kSystem) return errno_of(EOPNOTSUPP);
  if (name.ends_with('.') && name.find('.') == name.size() - 1) return errno_of(EINVAL);
  return {};
}

bool has_user_xattrs(const Attributes& attributes) {
  return attributes.is_regular() || attributes.is_directory();
}

Outcome<void> check_get(const Caller& caller, const Attributes& attributes, std::string_view name) {
  Namespace space = namespace_of(name);
  if (space == Namespace::kTrusted && !privileged(caller)) return errno_of(ENODATA);
  if (space == Namespace::kUser && !has_user_xattrs(attributes)) return errno_of(ENODATA);
  if (space == Namespace::kUser || space == Namespace::kOther) TRY(check_access(caller, attributes, R_OK));
  return check_known(name);
}

Outcome<void> check_change_acl(const Caller& caller, const Attributes& attributes, std::string_view name) {
  if (!is_acl(name)) return {};
  if (attributes.is_symlink()) return errno_of(EOPNOTSUPP);
  if (!owns(caller, attributes)) return errno_of(EPERM);
  if (name == "system.posix_acl_default" && !attributes.is_directory()) return errno_of(EACCES);
  return {};
}

Outcome<void> check_change(const Caller& caller, const Attributes& attributes, std::string_view name) {
  const Namespace space = namespace_of(name);
  const bool may_all = caller.trusted || privileged(caller);
  if (space == Namespace::kTrusted && !may_all) return errno_of(EPERM);
  if (space == Namespace::kUser) {
    if (!has_user_xattrs(attributes)) return errno_of(EPERM);
    if (attributes.is_directory() && (attributes.mode & S_ISVTX) != 0 && !owns(caller, attributes))
      return errno_of(EPERM);
  }
  if (space == Namespace::kUser || space == Namespace::kOther) TRY(check_access(caller, attributes, W_OK));
  if (space == Namespace::kSecurity && !may_all) return errno_of(EPERM);
  TRY(check_change_acl(caller, attributes, name));
  return check_known(name);
}

}  // namespace

Outcome<void> check_xattr_name(std::string_view name) {
  if (name.empty() || name.size() > kXattrNameMax) return errno_of(ERANGE);
  return {};
}

Outcome<Bytes> Filesystem::get_xattr(const Caller& caller, InodeId inode, std::string_view name) {
  TRY(check_xattr_name(name));
  std::shared_lock lock(mutex_);
  Attributes attributes = TRY(stat_handle(inode));
  TRY(check_get(caller, attributes, name));
  ByteView value = TRY(head_.get_xattr(inode, name));
  return Bytes(value.begin(), value.end());
}

Outcome<std::string> Filesystem::list_xattrs(const Caller& caller, InodeId inode) {
  std::shared_lock lock(mutex_);
  TRY(stat_handle(inode));
  std::string names;
  TRY(head_.list_xattrs(inode, [&](std::string_view name, ByteView) {
    if (name.starts_with("trusted.") && !privileged(caller)) return;
    names += name;
    names += '\0';
  }));
  return names;
}

Outcome<void> Filesystem::set_xattr(const Caller& caller, InodeId inode, std::string_view name,
                                    ByteView value, XattrMode mode) {
  TRY(check_xattr_name(name));
  if (value.size() > kXattrValueMax) return errno_of(E2BIG);
  Call call(*this, caller);
  TRY(call.begin(name.size() + value.size()));
  Attributes attributes = TRY(stat_handle(inode));
  TRY(check_change(caller, attributes, name));
  bool exists = false;
  size_t others = 0;
  TRY(head_.list_xattrs(inode, [&](std::string_view other, ByteView bytes) {
    if (other == name)
      exists = true;
    else
      others += other.size() + bytes.size();
  }));
  const bool must_be_new = mode == XattrMode::kCreate || mode == XattrMode::kBoth;
  const bool must_exist = mode == XattrMode::kReplace || mode == XattrMode::kBoth;
  if (exists && must_be_new) return errno_of(EEXIST);
  if (!exists && must_exist) return errno_of(ENODATA);
  if (others + name.size() + value.size() > kXattrsMax) return errno_of(ENOSPC);
  TRY(call.apply_to(attributes.nlink,
                    SetXattr{.inode = inode, .name = name, .value = value, .time = call.now()}));
  return call.commit();
}

Outcome<void> Filesystem::remove_xattr(const Caller& caller, InodeId inode, std::string_view name) {
  TRY(check_xattr_name(name));
  Call call(*this, caller);
  TRY(call.begin(name.size()));
  Attributes attributes = TRY(stat_handle(inode));
  TRY(check_change(caller, attributes, name));
  TRY(head_.get_xattr(inode, name));
  TRY(call.apply_to(attributes.nlink, RemoveXattr{.inode = inode, .name = name, .time = call.now()}));
  return call.commit();
}

}  // namespace reprise::fs
