// What making, moving and removing names is refused for, call by call. What is wrong with a path alone is in
// errors_paths_test.cc.
#include <stdio.h>

#include "tests/conformance/table.h"

namespace reprise::conformance {
namespace {

CONFORMANCE_SUITE_OF(House, LinkErrors, Which::kTmpfs);

TEST_P(LinkErrors, AsLinux) {
  expect({
      ROW(EPERM, root, link("full", "x")),
      ROW(EPERM, root, link("full/sub", "full/sub/sub/x")),
      ROW(EPERM, root, link(".", "x")),
      ROW(EPERM, root, link("/", "x")),
      ROW(EPERM, root, link("dirlink", "x", AT_SYMLINK_FOLLOW)),
      ROW(EPERM, root, link("dirlink/", "x")),
      ROW(EEXIST, root, link("full", "file")),
      ROW(EEXIST, root, link("file", "file")),
      ROW(EEXIST, root, link("file", "link")),
      ROW(EEXIST, root, link("file", "gone")),
      ROW(EEXIST, root, link("file", "full/")),
      ROW(ENOENT, root, link("file", "x/")),
      ROW(ENOENT, root, link("gone", "x", AT_SYMLINK_FOLLOW)),
      ROW(ENOTDIR, root, link("file/", "x")),
      ROW(ENOTDIR, root, link("link/", "x")),
      ROW(EINVAL, root, link("file", "x", AT_REMOVEDIR)),
      ROW(ENOENT, root, link({fd("file", O_RDONLY), ""}, "x")),
      ROW(ENOTDIR, root, link({fd("file", O_RDONLY), "x"}, "x")),
      ROW(ENOTDIR, root, link("file", {fd("file", O_RDONLY), "x"})),
      ROW(EBADF, root, link({9999, "file"}, "x")),
      ROW(EBADF, root, link("file", {9999, "x"})),
      ROW(EACCES, alice, link("mine", "full/x")),
      ROW(EACCES, alice, link("mine", "hers/../closed/x")),
      ROW(EACCES, bob, link("tmp/bobs", "full/x")),
  });
}

CONFORMANCE_SUITE_OF(House, MkdirErrors, Which::kTmpfs);

TEST_P(MkdirErrors, AsLinux) {
  expect({
      ROW(EEXIST, root, mkdir("file")),
      ROW(EEXIST, root, mkdir("file/")),
      ROW(EEXIST, root, mkdir("link")),
      ROW(EEXIST, root, mkdir("gone")),
      ROW(EEXIST, root, mkdir("gone/")),
      ROW(EEXIST, root, mkdir("loop")),
      ROW(EEXIST, root, mkdir("full/")),
      ROW(EEXIST, root, mkdir("full//.")),
      ROW(EEXIST, root, mkdir("..")),
      ROW(EEXIST, alice, mkdir("full")),
      ROW(ENOENT, root, mkdir("none/x/")),
      ROW(ENOTDIR, root, mkdir("fifo/x/")),
      ROW(EBADF, root, mkdir({9999, "x"})),
      ROW(ENOTDIR, root, mkdir({fd("file", O_RDONLY), "x"})),
      ROW(ENOENT, root, mkdir({fd("full", O_RDONLY), ""})),
      ROW(EACCES, alice, mkdir({fd("full", O_RDONLY), "x"})),
      ROW(EACCES, alice, mkdir("nosearch/x")),
      ROW(EACCES, alice, mkdir("noread/x")),
      ROW(EACCES, bob, mkdir("hers/x")),
      ROW(EACCES, dave, mkdir("hers/x")),
  });
}

CONFORMANCE_SUITE_OF(House, MknodErrors, Which::kTmpfs);

TEST_P(MknodErrors, AsLinux) {
  expect({
      ROW(EPERM, root, mknod("x", S_IFDIR | 0755)),
      ROW(EINVAL, root, mknod("x", S_IFLNK | 0777)),
      ROW(EINVAL, root, mknod("x", 0130000 | 0777)),
      ROW(EINVAL, root, mknod("x", S_IFMT | 0777)),
      ROW(EPERM, root, mknod("file", S_IFDIR | 0755)),
      ROW(EEXIST, root, mknod("fifo", S_IFIFO | 0666)),
      ROW(EEXIST, root, mknod("file", 0666)),
      ROW(EEXIST, root, mknod("full/", S_IFREG | 0666)),
      ROW(ENOENT, root, mknod("x/", S_IFREG | 0666)),
      ROW(ENOENT, root, mknod("x/", S_IFIFO | 0666)),
      ROW(EPERM, alice, mknod("x", S_IFCHR | 0666, 0x103)),
      ROW(EPERM, alice, mknod("x", S_IFBLK | 0666, 0x103)),
      ROW(EPERM, alice, mknod("hers/x", S_IFCHR | 0666, 0x103)),
      ROW(EPERM, alice, mknod("full/x", S_IFDIR | 0666)),
      ROW(EACCES, alice, mknod("full/x", S_IFCHR | 0666, 0x103)),
      ROW(EACCES, alice, mknod("full/x", S_IFBLK | 0666, 0x103)),
      ROW(EACCES, alice, mknod("full/x", S_IFSOCK | 0666)),
      ROW(EACCES, alice, mknod("full/x", S_IFIFO | 0666)),
      ROW(EACCES, alice, mknod("full/x", 0666)),
      ROW(EBADF, root, mknod({9999, "x"}, S_IFIFO | 0666)),
      ROW(ENOTDIR, root, mknod({fd("file", O_RDONLY), "x"}, S_IFIFO | 0666)),
  });
}

CONFORMANCE_SUITE_OF(House, SymlinkErrors, Which::kTmpfs);

TEST_P(SymlinkErrors, AsLinux) {
  expect({
      ROW(ENOENT, root, symlink("", "x")),
      ROW(ENOENT, root, symlink("", "file")),
      ROW(ENAMETOOLONG, root, symlink(std::string(4096, 'x'), "x")),
      ROW(ENAMETOOLONG, root, symlink(std::string(4096, 'x'), "none/x")),
      ROW(EEXIST, root, symlink("to", "file")),
      ROW(EEXIST, root, symlink("to", "full/")),
      ROW(EEXIST, root, symlink("to", "link")),
      ROW(ENOENT, root, symlink("to", "x/")),
      ROW(EACCES, alice, symlink("to", "full/x")),
      ROW(EBADF, root, symlink("to", {9999, "x"})),
      ROW(EINVAL, root, readlink("file")),
      ROW(EINVAL, root, readlink("full")),
      ROW(EINVAL, root, readlink("fifo")),
      ROW(EINVAL, root, readlink("dirlink/")),
      ROW(ENOTDIR, root, readlink("link/")),
      ROW(ok, alice, readlink("peep")),
      ROW(EBADF, root, readlink({9999, "link"})),
      ROW(ENOENT, root, readlink({fd("file", O_PATH), ""})),
      ROW(ENOTDIR, root, readlink({fd("file", O_PATH), "x"})),
      ROW(ok, root, readlink({fd("link", O_PATH | O_NOFOLLOW), ""})),
  });
}

CONFORMANCE_SUITE_OF(House, UnlinkErrors, Which::kTmpfs);

TEST_P(UnlinkErrors, AsLinux) {
  expect({
      ROW(EISDIR, root, unlink("full")),
      ROW(EISDIR, root, unlink("empty/")),
      ROW(EISDIR, root, unlink("full/.")),
      ROW(EISDIR, root, unlink("full/..")),
      ROW(EISDIR, root, unlink("/")),
      ROW(ENOTDIR, root, unlink("file/")),
      ROW(ENOTDIR, root, unlink("link/")),
      ROW(ENOTDIR, root, unlink("dirlink/")),
      ROW(EINVAL, root, unlink("file", AT_SYMLINK_NOFOLLOW)),
      ROW(EBADF, root, unlink({9999, "file"})),
      ROW(ENOTDIR, root, unlink({fd("file", O_RDONLY), "x"})),
      ROW(ENOENT, root, unlink({fd("full", O_RDONLY), ""})),
      ROW(EACCES, alice, unlink("full/file")),
      ROW(EACCES, alice, unlink("full/sub")),
      ROW(ENOENT, alice, unlink("full/none")),
      ROW(EACCES, alice, unlink({fd("full", O_RDONLY), "file"})),
      ROW(ENOENT, alice, unlink("noread/none/..")),
      ROW(EPERM, bob, unlink("tmp/file")),
      ROW(EPERM, carol, unlink("tmp/bobs")),
      ROW(EPERM, alice, unlink("tmp/bobs")),
      ROW(EPERM, bob, unlink("tmp/sub")),
      ROW(EISDIR, alice, unlink("tmp/sub")),
      ROW(EPERM, carol, unlink("tmp/hers/bobs")),
  });
}

CONFORMANCE_SUITE_OF(House, RmdirErrors, Which::kTmpfs);

TEST_P(RmdirErrors, AsLinux) {
  expect({
      ROW(ENOTEMPTY, root, rmdir("full")),
      ROW(ENOTEMPTY, root, rmdir("full/")),
      ROW(ENOTEMPTY, root, rmdir("full/sub")),
      ROW(ENOTEMPTY, root, rmdir("empty/..")),
      ROW(ENOTEMPTY, root, rmdir("..")),
      ROW(EINVAL, root, rmdir("empty/.")),
      ROW(EINVAL, root, rmdir(".")),
      ROW(EBUSY, root, rmdir("/")),
      ROW(ENOTDIR, root, rmdir("file")),
      ROW(ENOTDIR, root, rmdir("fifo")),
      ROW(ENOTDIR, root, rmdir("link")),
      ROW(ENOTDIR, root, rmdir("dirlink")),
      ROW(ENOTDIR, root, rmdir("dirlink/")),
      ROW(ENOTDIR, root, rmdir("gone")),
      ROW(ENOTDIR, root, rmdir("loop")),
      ROW(EBADF, root, rmdir({9999, "empty"})),
      ROW(EINVAL, root, unlink("empty", AT_REMOVEDIR | AT_SYMLINK_FOLLOW)),
      ROW(EACCES, alice, rmdir("full/sub")),
      ROW(EACCES, alice, rmdir("full/file")),
      ROW(ENOENT, alice, rmdir("full/none")),
      ROW(EPERM, bob, rmdir("tmp/sub")),
      ROW(EPERM, carol, rmdir("tmp/hers")),
      ROW(ENOTEMPTY, alice, rmdir("tmp/hers")),
      ROW(EPERM, bob, rmdir("tmp/file")),
  });
}

CONFORMANCE_SUITE_OF(House, RenameErrors, Which::kTmpfs);

TEST_P(RenameErrors, AsLinux) {
  expect({
      ROW(EINVAL, root, rename("full", "full/x")),
      ROW(EINVAL, root, rename("full", "full/sub/x")),
      ROW(EINVAL, root, rename("full", "full/sub/sub")),
      ROW(EINVAL, root, rename("full", "dirlink/x")),
      ROW(EINVAL, root, rename("full", "full/file")),
      ROW(ENOTEMPTY, root, rename("full/sub", "full")),
      ROW(ENOTEMPTY, root, rename("empty", "full")),
      ROW(ENOTEMPTY, root, rename("full/sub/sub", "full/sub")),
      ROW(EISDIR, root, rename("file", "empty")),
      ROW(EISDIR, root, rename("link", "full")),
      ROW(EISDIR, root, rename("fifo", "empty")),
      ROW(ENOTDIR, root, rename("full", "file")),
      ROW(ENOTDIR, root, rename("empty", "link")),
      ROW(ENOTDIR, root, rename("empty", "dirlink")),
      ROW(ENOTDIR, root, rename("empty", "gone")),
      ROW(ENOTDIR, root, rename("file/", "x")),
      ROW(ENOTDIR, root, rename("file", "x/")),
      ROW(ENOTDIR, root, rename("link/", "x")),
      ROW(ENOTDIR, root, rename("dirlink/", "x")),
      ROW(ENOTDIR, root, rename("file", "empty/")),
      ROW(EBUSY, root, rename("full/.", "x")),
      ROW(EBUSY, root, rename("full/..", "x")),
      ROW(EBUSY, root, rename("file", "full/.")),
      ROW(EBUSY, root, rename("file", "full/..")),
      ROW(EBUSY, root, rename("/", "x")),
      ROW(EBUSY, root, rename("file", "/")),
      ROW(EBADF, root, rename({9999, "file"}, "x")),
      ROW(EBADF, root, rename("file", {9999, "x"})),
      ROW(ENOTDIR, root, rename("file", {fd("file", O_RDONLY), "x"})),
      ROW(ENOENT, root, rename("none", "full/none")),
      ROW(ENOENT, root, rename("none", "file")),
      ROW(ok, root, rename("file", "file")),
      ROW(ok, root, rename("file", "./full/../file")),
      ROW(ok, root, rename("full", "full")),
  });
}

TEST_P(RenameErrors, OfFlags) {
  expect({
      ROW(EINVAL, root, rename("file", "x", 8)),
      ROW(EINVAL, root, rename("file", "x", RENAME_NOREPLACE | RENAME_EXCHANGE)),
      ROW(EINVAL, root, rename("file", "x", RENAME_EXCHANGE | RENAME_WHITEOUT)),
      ROW(EEXIST, root, rename("file", "theirs", RENAME_NOREPLACE)),
      ROW(EEXIST, root, rename("file", "file", RENAME_NOREPLACE)),
      ROW(EEXIST, root, rename("file", "gone", RENAME_NOREPLACE)),
      ROW(EEXIST, root, rename("full", "empty", RENAME_NOREPLACE)),
      ROW(EEXIST, root, rename("full", "full/sub", RENAME_NOREPLACE)),
      ROW(EEXIST, root, rename("file", "full/.", RENAME_NOREPLACE)),
      ROW(EEXIST, root, rename("file", "/", RENAME_NOREPLACE)),
      ROW(ENOENT, root, rename("none", "file", RENAME_NOREPLACE)),
      ROW(ENOENT, root, rename("file", "none", RENAME_EXCHANGE)),
      ROW(ENOENT, root, rename("none", "file", RENAME_EXCHANGE)),
      ROW(EINVAL, root, rename("full", "full/sub", RENAME_EXCHANGE)),
      ROW(EINVAL, root, rename("full/sub/sub", "full", RENAME_EXCHANGE)),
      ROW(EBUSY, root, rename("file", "/", RENAME_EXCHANGE)),
      ROW(EBUSY, root, rename("full/.", "file", RENAME_EXCHANGE)),
      ROW(ENOTDIR, root, rename("file/", "full", RENAME_EXCHANGE)),
      ROW(ENOTDIR, root, rename("full", "file/", RENAME_EXCHANGE)),
      ROW(ok, root, rename("file", "file", RENAME_EXCHANGE)),
  });
}

TEST_P(RenameErrors, OfPermission) {
  expect({
      ROW(EACCES, alice, rename("full/file", "x")),
      ROW(EACCES, alice, rename("mine", "full/x")),
      ROW(EACCES, alice, rename("mine", "full/file")),
      ROW(EACCES, alice, rename("full/file", "full/x")),
      ROW(EACCES, alice, rename("mine", "full/file", RENAME_EXCHANGE)),
      ROW(EACCES, alice, rename("full/file", "mine", RENAME_EXCHANGE)),
      ROW(EACCES, alice, rename("empty", "hers/x")),  // its ".." would be written
      ROW(EACCES, alice, rename("hers", "full/sub", RENAME_EXCHANGE)),
      ROW(EACCES, alice, rename("hers/../empty", "tmp/x")),
      ROW(EPERM, bob, rename("tmp/file", "tmp/x")),
      ROW(EPERM, bob, rename("tmp/file", "x")),
      ROW(EPERM, bob, rename("tmp/bobs", "tmp/file")),
      ROW(EPERM, bob, rename("theirs", "tmp/file")),
      ROW(EPERM, bob, rename("tmp/bobs", "tmp/file", RENAME_EXCHANGE)),
      ROW(EPERM, bob, rename("tmp/file", "tmp/bobs", RENAME_EXCHANGE)),
      ROW(EPERM, bob, rename("tmp/sub", "tmp/x")),
      ROW(EPERM, carol, rename("tmp/hers/bobs", "x")),
      ROW(EEXIST, bob, rename("tmp/file", "tmp/bobs", RENAME_NOREPLACE)),
  });
}

}  // namespace
}  // namespace reprise::conformance
