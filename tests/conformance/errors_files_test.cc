// What opening is refused for, and what descriptors are. What is wrong with a path alone is in
// errors_paths_test.cc.
#include <linux/falloc.h>
#include <unistd.h>

#include "tests/conformance/table.h"

namespace reprise::conformance {
namespace {

constexpr timespec kThen[2] = {{5, 6}, {7, 8}};
constexpr int kKeepSize = FALLOC_FL_KEEP_SIZE, kPunch = FALLOC_FL_PUNCH_HOLE;

CONFORMANCE_SUITE_OF(House, OpenErrors, Which::kTmpfs);

TEST_P(OpenErrors, OfKinds) {
  expect({
      ROW(ok, root, open("full", O_RDONLY)),
      ROW(ok, root, open("full", O_RDONLY | O_DIRECTORY | O_NOFOLLOW)),
      ROW(ok, root, open("dirlink", O_RDONLY | O_DIRECTORY)),
      ROW(ok, root, open("dirlink/", O_RDONLY | O_NOFOLLOW)),
      ROW(ok, root, open("/", O_RDONLY)),
      ROW(ok, root, open("d40", O_RDONLY)),
      ROW(EISDIR, root, open("full", O_WRONLY)),
      ROW(EISDIR, root, open("full", O_RDWR)),
      ROW(EISDIR, root, open("full", O_ACCMODE)),
      ROW(EISDIR, root, open("full", O_RDONLY | O_TRUNC)),
      ROW(EISDIR, root, open("full", O_RDONLY | O_CREAT)),
      ROW(EISDIR, root, open("full/", O_RDONLY | O_CREAT)),
      ROW(EISDIR, root, open("dirlink", O_RDONLY | O_CREAT)),
      ROW(EISDIR, root, open("full/.", O_RDWR | O_CREAT)),
      ROW(EISDIR, root, open("/", O_RDWR | O_CREAT)),
      ROW(EISDIR, root, open("full", O_RDWR | O_DIRECTORY)),
      ROW(EISDIR, root, open("file/", O_RDONLY | O_CREAT)),
      ROW(EISDIR, root, open("x/", O_RDWR | O_CREAT)),
      ROW(EISDIR, root, open("x/", O_RDWR | O_CREAT | O_EXCL)),
      ROW(ENOTDIR, root, open("file/", O_RDONLY)),
      ROW(ENOTDIR, root, open("link/", O_RDONLY)),
      ROW(ENOTDIR, root, open("file", O_RDONLY | O_DIRECTORY)),
      ROW(ENOTDIR, root, open("link", O_RDONLY | O_DIRECTORY)),
      ROW(ENOTDIR, root, open("fifo", O_RDONLY | O_DIRECTORY)),
      ROW(ENOTDIR, root, open("file", O_RDWR | O_DIRECTORY)),
      ROW(ENOTDIR, root, open("file", O_PATH | O_DIRECTORY)),
      ROW(ENOTDIR, root, open("dirlink", O_RDONLY | O_DIRECTORY | O_NOFOLLOW)),
      ROW(ENOTDIR, root, open("link", O_PATH | O_DIRECTORY | O_NOFOLLOW)),
      ROW(ENOTDIR, root, open("file", O_TMPFILE | O_RDWR)),
      ROW(ELOOP, root, open("link", O_RDONLY | O_NOFOLLOW)),
      ROW(ELOOP, root, open("dirlink", O_RDONLY | O_NOFOLLOW)),
      ROW(ELOOP, root, open("gone", O_RDONLY | O_NOFOLLOW)),
      ROW(ELOOP, root, open("gone", O_RDWR | O_CREAT | O_NOFOLLOW)),
      ROW(ELOOP, root, open("loop", O_RDWR | O_CREAT)),
      ROW(ok, root, open("gone", O_PATH | O_NOFOLLOW)),
      ROW(EEXIST, root, open("file", O_RDWR | O_CREAT | O_EXCL)),
      ROW(EEXIST, root, open("file", O_RDWR | O_CREAT | O_EXCL | O_TRUNC)),
      ROW(EEXIST, root, open("full", O_RDWR | O_CREAT | O_EXCL)),
      ROW(EEXIST, root, open("link", O_RDWR | O_CREAT | O_EXCL)),
      ROW(EEXIST, root, open("gone", O_RDWR | O_CREAT | O_EXCL)),
      ROW(EEXIST, root, open("loop", O_RDWR | O_CREAT | O_EXCL)),
      ROW(EEXIST, root, open("fifo", O_RDWR | O_CREAT | O_EXCL)),
      ROW(EEXIST, root, open("full/..", O_RDWR | O_CREAT | O_EXCL)),
      ROW(EEXIST, alice, open("closed", O_RDWR | O_CREAT | O_EXCL)),
      ROW(ENOENT, root, open("gonefar", O_RDWR | O_CREAT)),
      ROW(ENOENT, root, open("none", O_RDWR | O_TRUNC)),
      ROW(ENOENT, root, open("none", O_RDWR | O_EXCL)),
      ROW(ENXIO, root, open("socket", O_RDONLY)),
      ROW(ENXIO, root, open("socket", O_WRONLY)),
      ROW(ENXIO, root, open("socket", O_RDWR | O_CREAT)),
      ROW(ENXIO, root, open("fifo", O_WRONLY | O_NONBLOCK)),
      ROW(EACCES, root, open("device", O_RDONLY)),
      ROW(EACCES, root, open("device", O_RDWR)),
      ROW(ok, root, open("device", O_PATH)),
      ROW(ok, root, open("socket", O_PATH)),
      ROW(EBADF, root, open({9999, "file"}, O_RDONLY)),
      ROW(ENOTDIR, root, open({fd("file", O_RDONLY), "x"}, O_RDONLY)),
      ROW(ENOENT, root, open({fd("full", O_RDONLY), ""}, O_RDONLY)),
  });
}

TEST_P(OpenErrors, OfFlags) {
  expect({
      ROW(EINVAL, root, open("file", O_RDONLY | O_CREAT | O_DIRECTORY)),
      ROW(EINVAL, root, open("full", O_RDONLY | O_CREAT | O_DIRECTORY)),
      ROW(EINVAL, root, open("full", O_TMPFILE | O_RDONLY)),
      ROW(EINVAL, root, open("full", O_TMPFILE | O_RDWR | O_CREAT)),
      ROW(EINVAL, root, open("full", (O_TMPFILE & ~O_DIRECTORY) | O_RDWR)),
      ROW(ok, root, open("full", O_TMPFILE | O_RDWR)),
      ROW(ok, root, open("full", O_TMPFILE | O_WRONLY | O_EXCL)),
      ROW(ok, root, open("dirlink", O_TMPFILE | O_RDWR)),
      ROW(ok, root, open("file", O_RDONLY | O_EXCL)),
      ROW(ok, root, open("file", O_RDONLY | O_CREAT)),
      ROW(ok, root, open("file", O_RDWR | O_APPEND | O_NONBLOCK | O_SYNC)),
      ROW(ok, root, open("file", O_PATH | O_TRUNC | O_CREAT | O_EXCL)),
      ROW(ok, root, open("full", O_PATH | O_RDWR)),
      ROW(ok, root, open("file", O_ACCMODE)),
      ROW(ok, root, open("file", O_RDONLY | O_NOATIME)),
      ROW(ok, alice, open("mine", O_RDONLY | O_NOATIME)),
      ROW(EPERM, alice, open("file", O_RDONLY | O_NOATIME)),
      ROW(EPERM, bob, open("theirs", O_RDWR | O_NOATIME)),
  });
}

TEST_P(OpenErrors, OfPermission) {
  expect({
      ROW(EACCES, alice, open("owners", O_RDONLY)),
      ROW(EACCES, alice, open("owners", O_WRONLY)),
      ROW(ok, bob, open("owners", O_RDWR)),
      ROW(ok, dave, open("owners", O_RDWR)),
      ROW(ok, carol, open("owners", O_RDWR)),
      ROW(ok, alice, open("groups", O_RDWR)),
      ROW(EACCES, bob, open("groups", O_RDONLY)),
      ROW(EACCES, dave, open("groups", O_RDONLY)),
      ROW(ok, carol, open("groups", O_RDWR)),
      ROW(ok, bob, open("others", O_RDWR)),
      ROW(EACCES, carol, open("others", O_RDONLY)),
      ROW(ok, root, open("owners", O_RDWR)),
      ROW(ok, alice, open("file", O_RDONLY)),
      ROW(ok, alice, open("file", O_RDONLY | O_CREAT)),
      ROW(EACCES, alice, open("file", O_WRONLY)),
      ROW(EACCES, alice, open("file", O_RDWR)),
      ROW(EACCES, alice, open("file", O_ACCMODE)),
      ROW(EACCES, alice, open("file", O_WRONLY | O_APPEND)),
      ROW(EACCES, alice, open("file", O_RDONLY | O_TRUNC)),
      ROW(EACCES, alice, open("file", O_WRONLY | O_CREAT | O_TRUNC)),
      ROW(EACCES, alice, open("link", O_RDWR)),
      ROW(EACCES, alice, open("secret", O_RDONLY)),
      ROW(ok, alice, open("secret", O_PATH)),
      ROW(EACCES, alice, open("closed", O_RDONLY)),
      ROW(EACCES, alice, open("noread", O_RDONLY)),
      ROW(ok, alice, open("nosearch", O_RDONLY)),
      ROW(EISDIR, alice, open("closed", O_WRONLY)),
      ROW(EACCES, alice, open("full/x", O_WRONLY | O_CREAT)),
      ROW(EACCES, alice, open("full/x", O_RDONLY | O_CREAT | O_EXCL)),
      ROW(EACCES, alice, open("full", O_TMPFILE | O_RDWR)),
      ROW(EACCES, alice, open("closed", O_TMPFILE | O_RDWR)),
      ROW(EACCES, alice, open("nosearch", O_TMPFILE | O_RDWR)),
      ROW(EACCES, alice, open("device", O_RDONLY)),
      ROW(ENXIO, alice, open("socket", O_RDWR)),
  });
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(FifoErrors);  // who is not root has nothing that opens them
CONFORMANCE_SUITE_OF(House, FifoErrors, Which::kTmpfs);

TEST_P(FifoErrors, AsLinux) {
  expect({
      ROW(ok, root, open("fifo", O_RDONLY | O_NONBLOCK)),
      ROW(ESPIPE, root, seek(fd("fifo", O_RDWR), 0, SEEK_SET)),
      ROW(ESPIPE, root, pread(fd("fifo", O_RDWR), 1, 0)),
      ROW(ESPIPE, root, pwrite(fd("fifo", O_RDWR), "x", 0)),
      ROW(EINVAL, root, fsync(fd("fifo", O_RDWR))),
      ROW(EINVAL, root, ftruncate(fd("fifo", O_RDWR), 0)),
      ROW(ESPIPE, root, fallocate(fd("fifo", O_RDWR), 0, 0, 1)),
      ROW(EINVAL, root, copy_file_range(fd("fifo", O_RDWR), nullptr, fd("theirs", O_RDWR), nullptr, 1)),
  });
}

CONFORMANCE_SUITE_OF(House, DescriptorErrors, Which::kTmpfs);

TEST_P(DescriptorErrors, OfReadingAndWriting) {
  expect({
      ROW(EBADF, root, read(9999, 1)),
      ROW(EBADF, root, read(-1, 1)),
      ROW(EBADF, root, read(fd("file", O_WRONLY), 1)),
      ROW(EBADF, root, read(fd("file", O_ACCMODE), 1)),
      ROW(EBADF, root, read(fd("file", O_PATH), 1)),
      ROW(EBADF, root, read(fd("file", O_WRONLY), 0)),
      ROW(EISDIR, root, read(fd("full", O_RDONLY), 1)),
      ROW(EISDIR, root, pread(fd("full", O_RDONLY), 1, 0)),
      ROW(EBADF, root, pread(9999, 1, 0)),
      ROW(EBADF, root, pread(fd("file", O_WRONLY), 1, 0)),
      ROW(EINVAL, root, pread(fd("file", O_RDONLY), 1, -1)),
      ROW(EINVAL, root, pread(9999, 1, -1)),
      ROW(EINVAL, root, pread(fd("full", O_RDONLY), 1, -1)),
      ROW(EBADF, root, write(9999, "x")),
      ROW(EBADF, root, write(fd("file", O_RDONLY), "x")),
      ROW(EBADF, root, write(fd("file", O_RDONLY), "")),
      ROW(EBADF, root, write(fd("file", O_PATH), "x")),
      ROW(EBADF, root, write(fd("full", O_RDONLY), "x")),
      ROW(EBADF, root, pwrite(fd("file", O_RDONLY), "x", 0)),
      ROW(EINVAL, root, pwrite(fd("file", O_RDWR), "x", -1)),
      ROW(EINVAL, root, pwrite(fd("file", O_RDWR | O_APPEND), "x", -1)),
      ROW(EBADF, root, fsync(9999)),
      ROW(EBADF, root, fsync(fd("file", O_PATH))),
      ROW(ok, root, fsync(fd("file", O_RDONLY))),
      ROW(ok, root, fsync(fd("full", O_RDONLY))),
      ROW(EBADF, root, close(9999)),
      ROW(EBADF, root, close(-1)),
      ROW(EBADF, root, dup(9999)),
      ROW(EBADF, root, status_flags(9999)),
      ROW(EBADF, root, set_status_flags(9999, O_APPEND)),
      ROW(EBADF, root, set_status_flags(fd("file", O_PATH), O_APPEND)),
      ROW(EBADF, root, fstat(9999)),
      ROW(ok, root, fstat(fd("file", O_PATH))),
  });
}

TEST_P(DescriptorErrors, OfSeeking) {
  expect({
      ROW(EBADF, root, seek(9999, 0, SEEK_SET)),
      ROW(EBADF, root, seek(fd("file", O_PATH), 0, SEEK_SET)),
      ROW(EINVAL, root, seek(fd("file", O_RDONLY), -1, SEEK_SET)),
      ROW(EINVAL, root, seek(fd("file", O_RDONLY), -1, SEEK_CUR)),
      ROW(EINVAL, root, seek(fd("file", O_RDONLY), -6, SEEK_END)),
      ROW(EINVAL, root, seek(fd("file", O_RDONLY), 0, 5)),
      ROW(EINVAL, root, seek(fd("file", O_RDONLY), 0, -1)),
      ROW(ENXIO, root, seek(fd("file", O_RDONLY), 5, SEEK_DATA)),
      ROW(ENXIO, root, seek(fd("file", O_RDONLY), 5, SEEK_HOLE)),
      ROW(ENXIO, root, seek(fd("file", O_RDONLY), -1, SEEK_DATA)),
      ROW(ENXIO, root, seek(fd("file", O_RDONLY), -1, SEEK_HOLE)),
  });
}

TEST_P(DescriptorErrors, OfDirectories) {
  expect({
      ROW(EBADF, root, read_directory(9999, 10)),
      ROW(EBADF, root, read_directory(fd("full", O_PATH), 10)),
      ROW(ENOTDIR, root, read_directory(fd("file", O_RDONLY), 10)),
      ROW(ENOENT, lost, read_directory(fd(".", O_RDONLY), 10)),
      ROW(ENOENT, lost, working_directory()),
      ROW(EBADF, root, fchdir(9999)),
      ROW(ENOTDIR, root, fchdir(fd("file", O_RDONLY))),
      ROW(EACCES, alice, fchdir(fd("nosearch", O_RDONLY))),
      ROW(EACCES, alice, fchdir(fd("closed", O_PATH))),
      ROW(ENOTDIR, root, chdir("file")),
      ROW(ENOTDIR, root, chdir("link")),
      ROW(ENOTDIR, root, chdir("fifo")),
      ROW(EACCES, alice, chdir("closed")),
      ROW(EACCES, alice, chdir("nosearch")),
      ROW(EACCES, alice, chdir("door")),
      ROW(ok, alice, chdir("noread")),
  });
}

CONFORMANCE_SUITE_OF(House, TruncateErrors, Which::kTmpfs);

TEST_P(TruncateErrors, AsLinux) {
  expect({
      ROW(EINVAL, root, truncate("file", -1)),
      ROW(EINVAL, root, truncate("none", -1)),
      ROW(EINVAL, root, truncate("file", INT64_MIN)),
      ROW(EISDIR, root, truncate("full", 0)),
      ROW(EISDIR, root, truncate("dirlink", 0)),
      ROW(EISDIR, alice, truncate("closed", 0)),
      ROW(EINVAL, root, truncate("fifo", 0)),
      ROW(EINVAL, root, truncate("socket", 0)),
      ROW(EINVAL, root, truncate("device", 0)),
      ROW(ENOTDIR, root, truncate("file/", 0)),
      ROW(EACCES, alice, truncate("file", 0)),
      ROW(EACCES, alice, truncate("file", 5)),
      ROW(EACCES, alice, truncate("link", 0)),
      ROW(EACCES, alice, truncate("owners", 0)),
      ROW(EACCES, bob, truncate("groups", 0)),
      ROW(EACCES, carol, truncate("others", 0)),
      ROW(EBADF, root, ftruncate(9999, 0)),
      ROW(EINVAL, root, ftruncate(9999, -1)),
      ROW(EBADF, root, ftruncate(fd("file", O_PATH), 0)),
      ROW(EINVAL, root, ftruncate(fd("file", O_RDWR), -1)),
      ROW(EINVAL, root, ftruncate(fd("file", O_RDONLY), 0)),
      ROW(EINVAL, root, ftruncate(fd("file", O_ACCMODE), 0)),
      ROW(EINVAL, root, ftruncate(fd("full", O_RDONLY), 0)),
  });
}

// ext4 beside them, which has largest files as ours are, and all kinds of changes.
CONFORMANCE_SUITE_OF(House, SizeErrors, Which::kExt4);

TEST_P(SizeErrors, AsLinux) {
  expect({
      ROW(EFBIG, root, truncate("file", INT64_MAX)),
      ROW(EFBIG, root, truncate("file", (int64_t{1} << 44) + 1)),
      ROW(EFBIG, root, ftruncate(fd("file", O_RDWR), INT64_MAX)),
      ROW(EFBIG, root, pwrite(fd("file", O_RDWR), "x", int64_t{1} << 44)),
      ROW(EFBIG, root, pwrite(fd("file", O_RDWR), "x", INT64_MAX - 1)),
      ROW(EFBIG, root, fallocate(fd("file", O_RDWR), 0, int64_t{1} << 44, 1)),
      ROW(EFBIG, root, fallocate(fd("file", O_RDWR), 0, 0, INT64_MAX)),
      ROW(EFBIG, root, fallocate(fd("file", O_RDWR), 0, INT64_MAX, 1)),
      ROW(EFBIG, root, fallocate(fd("file", O_RDWR), kKeepSize, INT64_MAX, INT64_MAX)),
      ROW(EBADF, root, fallocate(9999, 0, 0, 1)),
      ROW(EBADF, root, fallocate(fd("file", O_RDONLY), 0, 0, 1)),
      ROW(EBADF, root, fallocate(fd("file", O_PATH), 0, 0, 1)),
      ROW(EBADF, root, fallocate(fd("full", O_RDONLY), 0, 0, 1)),
      ROW(EINVAL, root, fallocate(fd("file", O_RDWR), 0, 0, 0)),
      ROW(EINVAL, root, fallocate(fd("file", O_RDWR), 0, 0, -1)),
      ROW(EINVAL, root, fallocate(fd("file", O_RDWR), 0, -1, 1)),
      ROW(EINVAL, root, fallocate(fd("file", O_RDONLY), 0, -1, 1)),
      ROW(EINVAL, root, fallocate(fd("file", O_RDWR), kPunch | kKeepSize, 0, 0)),
      ROW(EOPNOTSUPP, root, fallocate(fd("file", O_RDWR), kPunch, 0, 1)),
      ROW(EOPNOTSUPP, root, fallocate(fd("file", O_RDWR), 0x4000, 0, 1)),
      ROW(EINVAL, root, seek(fd("file", O_RDONLY), (int64_t{1} << 44) + 1, SEEK_SET)),
      ROW(EINVAL, root, seek(fd("file", O_RDONLY), INT64_MAX, SEEK_CUR)),
  });
}

CONFORMANCE_SUITE_OF(House, CopyErrors, Which::kTmpfs);

TEST_P(CopyErrors, AsLinux) {
  expect({
      ROW(EBADF, root, copy_file_range(9999, nullptr, fd("theirs", O_RDWR), nullptr, 1)),
      ROW(EBADF, root, copy_file_range(fd("file", O_RDONLY), nullptr, 9999, nullptr, 1)),
      ROW(EBADF, root, copy_file_range(fd("file", O_WRONLY), nullptr, fd("theirs", O_RDWR), nullptr, 1)),
      ROW(EBADF, root, copy_file_range(fd("file", O_RDONLY), nullptr, fd("theirs", O_RDONLY), nullptr, 1)),
      ROW(EBADF, root, copy_file_range(fd("file", O_PATH), nullptr, fd("theirs", O_RDWR), nullptr, 1)),
      ROW(EBADF, root,
          copy_file_range(fd("file", O_RDONLY), nullptr, fd("theirs", O_RDWR | O_APPEND), nullptr, 1)),
      ROW(EISDIR, root, copy_file_range(fd("full", O_RDONLY), nullptr, fd("theirs", O_RDWR), nullptr, 1)),
      ROW(EISDIR, root, copy_file_range(fd("file", O_RDONLY), nullptr, fd("full", O_RDONLY), nullptr, 1)),
      ROW(EINVAL, root, copy_file_range(fd("file", O_RDWR), nullptr, fd("file", O_RDWR), nullptr, 1)),
      ROW(ok, root, copy_file_range(fd("file", O_RDONLY), nullptr, fd("theirs", O_RDWR), nullptr, 0)),
  });
}

// Nothing is changed where a filesystem takes no changes, and what looks is answered.
CONFORMANCE_SUITE_OF(House, ReadOnlyErrors, Which::kTmpfs);

TEST_P(ReadOnlyErrors, AsLinux) {
  OK(lost().chdir("/"));  // what has been removed and is in use keeps the kernel from it
  make_read_only();
  expect({
      ROW(EROFS, root, chmod("file", 0600)),
      ROW(EROFS, alice, chmod("file", 0600)),
      ROW(EROFS, root, fchmod(fd("file", O_RDONLY), 0600)),
      ROW(EROFS, root, chown("file", 5, 5)),
      ROW(EROFS, root, chown("link", 5, 5, AT_SYMLINK_NOFOLLOW)),
      ROW(EROFS, root, fchown(fd("file", O_RDONLY), 5, 5)),
      ROW(EROFS, root, utimens("file", kThen)),
      ROW(EROFS, root, utimens("file", nullptr)),
      ROW(EROFS, root, futimens(fd("file", O_RDONLY), kThen)),
      ROW(EROFS, root, truncate("file", 0)),
      ROW(EROFS, root, open("file", O_WRONLY)),
      ROW(EROFS, root, open("file", O_RDWR)),
      ROW(EROFS, root, open("file", O_RDONLY | O_TRUNC)),
      ROW(EROFS, root, open("x", O_RDONLY | O_CREAT)),
      ROW(EROFS, root, open("x", O_RDWR | O_CREAT | O_EXCL)),
      ROW(EROFS, root, open("full", O_TMPFILE | O_RDWR)),
      ROW(EROFS, root, mkdir("x")),
      ROW(EROFS, root, mkdir("x/")),
      ROW(EROFS, root, mknod("x", S_IFREG | 0666)),
      ROW(EROFS, root, mknod("x", S_IFIFO | 0666)),
      ROW(EROFS, root, symlink("to", "x")),
      ROW(EROFS, root, link("file", "x")),
      ROW(EROFS, root, unlink("file")),
      ROW(EROFS, root, rmdir("empty")),
      ROW(EROFS, root, rename("file", "x")),
      ROW(EROFS, root, rename("file", "x", RENAME_NOREPLACE)),
      ROW(EROFS, root, rename("file", "mine", RENAME_EXCHANGE)),
      ROW(EROFS, root, set_xattr("file", "user.x", "x")),
      ROW(EROFS, root, remove_xattr("file", "user.a")),
      ROW(EROFS, root, access("file", W_OK)),
      ROW(EROFS, root, access("full", W_OK)),
      ROW(EROFS, alice, access("theirs", W_OK)),
      ROW(ok, root, access("fifo", W_OK)),
      ROW(ok, root, access("file", R_OK)),
      ROW(ENOENT, root, chmod("none", 0600)),
      ROW(ENOTDIR, root, mkdir("file/x")),
      ROW(EACCES, alice, open("closed/file", O_RDWR)),
      ROW(EEXIST, root, mkdir("full")),
      ROW(EEXIST, root, symlink("to", "file")),
      ROW(EEXIST, root, mknod("fifo", S_IFIFO | 0666)),
      ROW(EEXIST, root, link("file", "mine")),
      ROW(EEXIST, root, open("file", O_RDWR | O_CREAT | O_EXCL)),
      ROW(ok, root, open("file", O_RDONLY)),
      ROW(ok, root, open("file", O_RDONLY | O_CREAT)),
      ROW(ok, root, stat("file")),
      ROW(ok, root, readlink("link")),
      ROW(ok, root, get_xattr("file", "user.a")),
      ROW(ok, root, read(fd("file", O_RDONLY), 10)),
      ROW(ok, root, list("full")),
  });
}

}  // namespace
}  // namespace reprise::conformance
