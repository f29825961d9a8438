// What changing and asking for attributes is refused for, call by call. What is wrong with a path alone is in
// errors_paths_test.cc.
#include <unistd.h>

#include "tests/conformance/table.h"

namespace reprise::conformance {
namespace {

constexpr uint32_t kKeep = UINT32_MAX;
constexpr timespec kThen[2] = {{5, 6}, {7, 8}};
constexpr timespec kNowAndThen[2] = {{0, UTIME_NOW}, {7, 8}};
constexpr timespec kNowAlone[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
constexpr timespec kNothing[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
constexpr timespec kTooMany[2] = {{0, 1'000'000'000}, {0, 0}};
constexpr timespec kNegative[2] = {{0, 0}, {0, -1}};

CONFORMANCE_SUITE_OF(House, ChmodErrors, Which::kTmpfs);

TEST_P(ChmodErrors, AsLinux) {
  expect({
      ROW(EPERM, alice, chmod("file", 0600)),
      ROW(EPERM, alice, chmod("file", 0644)),
      ROW(EPERM, alice, chmod("theirs", 0600)),
      ROW(EPERM, alice, chmod("full", 0700)),
      ROW(EPERM, alice, chmod("link", 0600)),
      ROW(EPERM, alice, chmod("/", 0777)),
      ROW(EPERM, bob, chmod("mine", 0600)),
      ROW(EPERM, bob, chmod("owners", 0600)),  // of the group
      ROW(EPERM, bob, chmod("fifo", 0600)),
      ROW(ENOTDIR, root, chmod("file/", 0600)),
      ROW(EBADF, root, chmod({9999, "file"}, 0600)),
      ROW(ENOENT, root, chmod({fd("full", O_RDONLY), ""}, 0600)),
      ROW(EPERM, alice, fchmod(fd("file", O_RDONLY), 0600)),
      ROW(EPERM, alice, fchmod(fd("theirs", O_RDWR), 0600)),
      ROW(EPERM, alice, fchmod(fd("full", O_RDONLY), 0700)),
      ROW(EBADF, root, fchmod(9999, 0600)),
      ROW(EBADF, root, fchmod(-1, 0600)),
      ROW(EBADF, root, fchmod(fd("file", O_PATH), 0600)),
      ROW(EBADF, root, fchmod(fd("full", O_PATH), 0700)),
  });
}

CONFORMANCE_SUITE_OF(House, ChownErrors, Which::kTmpfs);

TEST_P(ChownErrors, AsLinux) {
  expect({
      ROW(EPERM, alice, chown("mine", 1001, kKeep)),
      ROW(EPERM, alice, chown("mine", 0, kKeep)),
      ROW(EPERM, alice, chown("mine", kKeep, 1002)),
      ROW(EPERM, alice, chown("mine", kKeep, 0)),
      ROW(EPERM, alice, chown("mine", 1001, 1000)),
      ROW(EPERM, alice, chown("file", 1000, kKeep)),
      ROW(EPERM, alice, chown("file", kKeep, 1000)),
      ROW(EPERM, alice, chown("file", 0, 0)),
      ROW(EPERM, alice, chown("suid", kKeep, kKeep)),  // it would take set-user-id away
      ROW(EPERM, bob, chown("owners", kKeep, 2000)),
      ROW(EPERM, bob, chown("owners", 1001, kKeep)),
      ROW(EPERM, alice, chown("link", 1000, kKeep)),
      ROW(EPERM, alice, chown("link", kKeep, 1000, AT_SYMLINK_NOFOLLOW)),
      ROW(EPERM, alice, chown("gone", kKeep, 1000, AT_SYMLINK_NOFOLLOW)),
      ROW(EPERM, alice, chown("full", kKeep, 1000)),
      ROW(EINVAL, root, chown("file", 5, 5, AT_REMOVEDIR)),
      ROW(EINVAL, root, chown("none", 5, 5, AT_REMOVEDIR)),
      ROW(EBADF, root, chown({9999, "file"}, 5, 5)),
      ROW(ENOENT, root, chown({fd("full", O_RDONLY), ""}, 5, 5)),
      ROW(EPERM, alice, fchown(fd("file", O_RDONLY), kKeep, 1000)),
      ROW(EPERM, alice, fchown(fd("theirs", O_RDWR), 1000, kKeep)),
      ROW(EPERM, alice, fchown(fd("suid", O_RDONLY), kKeep, kKeep)),
      ROW(EBADF, root, fchown(9999, 5, 5)),
      ROW(EBADF, root, fchown(fd("file", O_PATH), 5, 5)),
  });
}

CONFORMANCE_SUITE_OF(House, UtimensErrors, Which::kTmpfs);

TEST_P(UtimensErrors, AsLinux) {
  expect({
      ROW(EINVAL, root, utimens("file", kTooMany)),
      ROW(EINVAL, root, utimens("file", kNegative)),
      ROW(EINVAL, root, futimens(fd("file", O_RDONLY), kTooMany)),
      ROW(EINVAL, root, utimens("file", kThen, AT_REMOVEDIR)),
      ROW(EPERM, alice, utimens("file", kThen)),
      ROW(EPERM, alice, utimens("theirs", kThen)),
      ROW(EPERM, alice, utimens("theirs", kNowAndThen)),
      ROW(EPERM, alice, utimens("theirs", kNowAlone)),
      ROW(EPERM, alice, utimens("link", kThen, AT_SYMLINK_NOFOLLOW)),
      ROW(EPERM, alice, utimens("full", kThen)),
      ROW(EACCES, alice, utimens("file", nullptr)),
      ROW(EACCES, alice, utimens("full", nullptr)),
      ROW(EACCES, alice, utimens("closed", nullptr)),
      ROW(ok, alice, utimens("closed/file", kNothing)),
      ROW(ok, root, utimens("none", kNothing)),
      ROW(ok, alice, utimens("file", kNothing)),
      ROW(EPERM, alice, futimens(fd("theirs", O_RDWR), kThen)),
      ROW(EACCES, alice, futimens(fd("file", O_RDONLY), nullptr)),
      ROW(EBADF, root, futimens(9999, kThen)),
      ROW(EBADF, root, futimens(fd("file", O_PATH), kThen)),
      ROW(EBADF, root, utimens({9999, "file"}, kThen)),
      ROW(ENOENT, root, utimens({fd("full", O_RDONLY), ""}, kThen)),
      ROW(ENOTDIR, root, utimens("file/", kThen)),
  });
}

CONFORMANCE_SUITE_OF(House, AccessErrors, Which::kTmpfs);

TEST_P(AccessErrors, ByClass) {
  expect({
      ROW(EACCES, alice, access("owners", R_OK)),
      ROW(EACCES, alice, access("owners", W_OK)),
      ROW(EACCES, alice, access("owners", X_OK)),
      ROW(ok, bob, access("owners", R_OK | W_OK | X_OK)),
      ROW(ok, dave, access("owners", R_OK | W_OK | X_OK)),
      ROW(ok, carol, access("owners", R_OK | W_OK | X_OK)),
      ROW(ok, alice, access("groups", R_OK | W_OK | X_OK)),
      ROW(EACCES, bob, access("groups", R_OK)),
      ROW(EACCES, bob, access("groups", X_OK)),
      ROW(EACCES, dave, access("groups", W_OK)),
      ROW(ok, carol, access("groups", R_OK | W_OK | X_OK)),
      ROW(ok, alice, access("others", R_OK | W_OK | X_OK)),
      ROW(ok, bob, access("others", R_OK | W_OK | X_OK)),
      ROW(ok, dave, access("others", R_OK | W_OK | X_OK)),
      ROW(EACCES, carol, access("others", R_OK)),
      ROW(EACCES, carol, access("others", W_OK)),
      ROW(EACCES, carol, access("others", X_OK)),
      ROW(ok, carol, access("others", F_OK)),
      ROW(ok, root, access("owners", R_OK | W_OK | X_OK)),
      ROW(ok, root, access("secret", R_OK | W_OK)),
      ROW(EACCES, root, access("secret", X_OK)),
      ROW(EACCES, root, access("fifo", X_OK)),
      ROW(ok, root, access("closed", R_OK | W_OK | X_OK)),
      ROW(EACCES, alice, access("closed", R_OK)),
      ROW(EACCES, alice, access("noread", R_OK)),
      ROW(ok, alice, access("noread", X_OK)),
      ROW(EACCES, alice, access("nosearch", X_OK)),
      ROW(ok, alice, access("link", R_OK)),
      ROW(EACCES, alice, access("link", W_OK)),
      ROW(EINVAL, root, access("file", 8)),
      ROW(EINVAL, root, access("none", 8)),
      ROW(EBADF, root, access({9999, "file"}, F_OK)),
      ROW(ENOTDIR, root, access("file/", F_OK)),
  });
}

CONFORMANCE_SUITE_OF(House, XattrErrors, Which::kTmpfs);

TEST_P(XattrErrors, OfNamesAndValues) {
  expect({
      ROW(ENODATA, root, get_xattr("file", "user.none")),
      ROW(ENODATA, root, get_xattr("full", "user.a")),
      ROW(ENODATA, root, remove_xattr("file", "user.none")),
      ROW(ENODATA, root, set_xattr("file", "user.none", "x", XattrMode::kReplace)),
      ROW(EEXIST, root, set_xattr("file", "user.a", "x", XattrMode::kCreate)),
      ROW(ERANGE, root, get_xattr("file", "")),
      ROW(ERANGE, root, set_xattr("file", "", "x")),
      ROW(ERANGE, root, remove_xattr("file", "")),
      ROW(ERANGE, root, get_xattr("file", "user." + std::string(251, 'n'))),
      ROW(ERANGE, root, set_xattr("file", "user." + std::string(251, 'n'), "x")),
      ROW(ERANGE, root, remove_xattr("file", "user." + std::string(251, 'n'))),
      ROW(E2BIG, root, set_xattr("file", "user.x", std::string(65537, 'v'))),
      ROW(E2BIG, root, set_xattr("none", "user.x", std::string(65537, 'v'))),
      ROW(EOPNOTSUPP, root, get_xattr("file", "none")),
      ROW(EOPNOTSUPP, root, set_xattr("file", "none", "x")),
      ROW(EOPNOTSUPP, root, set_xattr("file", "other.x", "x")),
      ROW(EOPNOTSUPP, root, set_xattr("file", "system.x", "x")),
      ROW(EOPNOTSUPP, root, remove_xattr("file", "other.x")),
      ROW(EINVAL, root, set_xattr("file", "user.", "x")),
      ROW(EINVAL, root, set_xattr("file", "trusted.", "x")),
      ROW(EINVAL, root, get_xattr("file", "user.")),
      ROW(EINVAL, root, remove_xattr("file", "user.")),
      ROW(EBADF, root, get_xattr({9999, ""}, "user.a")),
      ROW(EBADF, root, set_xattr({9999, ""}, "user.a", "x")),
      ROW(EBADF, root, list_xattrs({9999, ""})),
      ROW(EBADF, root, remove_xattr({9999, ""}, "user.a")),
      ROW(EBADF, root, get_xattr({fd("file", O_PATH), ""}, "user.a")),
      ROW(EBADF, root, set_xattr({fd("file", O_PATH), ""}, "user.a", "x")),
      ROW(EBADF, root, list_xattrs({fd("file", O_PATH), ""})),
      ROW(EBADF, root, remove_xattr({fd("file", O_PATH), ""}, "user.a")),
      ROW(ENOTDIR, root, get_xattr("file/", "user.a")),
  });
}

TEST_P(XattrErrors, OfPermission) {
  expect({
      ROW(ok, alice, get_xattr("file", "user.a")),
      ROW(ok, alice, list_xattrs("secret")),
      ROW(EACCES, alice, get_xattr("secret", "user.a")),
      ROW(EACCES, alice, set_xattr("file", "user.x", "x")),
      ROW(EACCES, alice, set_xattr("file", "user.a", "x", XattrMode::kCreate)),
      ROW(EACCES, alice, remove_xattr("file", "user.a")),
      ROW(EACCES, alice, remove_xattr("file", "user.none")),
      ROW(EACCES, alice, set_xattr("full", "user.x", "x")),
      ROW(EACCES, alice, set_xattr({fd("file", O_RDONLY), ""}, "user.x", "x")),
      ROW(ENODATA, alice, get_xattr("file", "trusted.a")),
      ROW(EPERM, alice, set_xattr("mine", "trusted.x", "x")),
      ROW(EPERM, alice, remove_xattr("file", "trusted.a")),
      ROW(EPERM, alice, set_xattr("mine", "security.x", "x")),
      ROW(EPERM, alice, remove_xattr("mine", "security.x")),
      ROW(EPERM, root, set_xattr("link", "user.x", "x")),
      ROW(EPERM, root, set_xattr("fifo", "user.x", "x")),
      ROW(EPERM, root, set_xattr("socket", "user.x", "x")),
      ROW(EPERM, root, set_xattr("device", "user.x", "x")),
      ROW(EPERM, root, remove_xattr("link", "user.x")),
      ROW(ENODATA, root, get_xattr("link", "user.x")),
      ROW(ENODATA, root, get_xattr("fifo", "user.x")),
      ROW(EPERM, bob, set_xattr("tmp", "user.x", "x")),
      ROW(EPERM, bob, remove_xattr("tmp", "user.x")),
      ROW(ENODATA, alice, get_xattr("tmp", "user.x")),
  });
}

}  // namespace
}  // namespace reprise::conformance
