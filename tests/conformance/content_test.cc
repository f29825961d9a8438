// Bytes of files: truncate, holes, fallocate, copy_file_range.
#include <linux/falloc.h>

#include "tests/conformance/conformance.h"

namespace reprise::conformance {
namespace {

CONFORMANCE_SUITE(Truncate);

TEST_P(Truncate, CutsAndGrowsWithZeros) {
  OK(root().write_file("f", "abcdef"));
  OK(root().truncate("f", 3));
  GIVES("abc", root().read_file("f"));
  OK(root().truncate("f", 5));
  GIVES(std::string("abc\0\0", 5), root().read_file("f"));
  int fd = must(root().open("f", O_RDWR));
  OK(root().pwrite(fd, std::string(10000, 'y'), 0));
  OK(root().ftruncate(fd, 5000));
  OK(root().ftruncate(fd, 9000));
  GIVES(std::string(5000, 'y') + std::string(4000, '\0'), root().read_file("f"));
}

TEST_P(Truncate, RefusesWhatIsNoFileAndNoSize) {
  OK(root().mkdir("d"));
  OK(root().write_file("f", ""));
  FAILS(EINVAL, root().truncate("f", -1));
  FAILS(EISDIR, root().truncate("d", 0));
  FAILS(ENOENT, root().truncate("none", 0));
  FAILS(ENOTDIR, root().truncate("f/g", 0));
  OK(root().chmod("f", 0444));
  FAILS(EACCES, alice().truncate("f", 0));
}

TEST_P(Truncate, SetsTimes) {
  OK(root().write_file("f", "abc"));
  Attributes before = must(root().stat("f"));
  tick();
  OK(root().truncate("f", 2));
  EXPECT_GT(must(root().stat("f")).mtime, before.mtime);
  EXPECT_GT(must(root().stat("f")).ctime, before.ctime);
}

// As on ext4; tmpfs does so only if it holds pages of the file.
CONFORMANCE_SUITE_ON(SameSize, Which::kExt4);

TEST_P(SameSize, TruncateSetsTheTimesAllTheSame) {
  OK(root().write_file("f", "abc"));
  Attributes before = must(root().stat("f"));
  tick();
  OK(root().truncate("f", 3));
  Attributes after = must(root().stat("f"));
  EXPECT_GT(after.mtime, before.mtime);
  tick();
  int fd = must(root().open("f", O_RDWR));
  OK(root().ftruncate(fd, 3));
  EXPECT_GT(must(root().stat("f")).mtime, after.mtime);
}

CONFORMANCE_SUITE(Sparse);

TEST_P(Sparse, HolesReadAsZerosAndTakeNoBlocks) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  OK(root().pwrite(fd, "x", 1 << 20));
  EXPECT_EQ(must(root().fstat(fd)).size, (1u << 20) + 1);
  EXPECT_EQ(must(root().fstat(fd)).blocks, 1u);
  GIVES(std::string(8192, '\0'), root().pread(fd, 8192, 4096));
  OK(root().ftruncate(fd, int64_t{1} << 40));
  EXPECT_EQ(must(root().fstat(fd)).blocks, 1u);
  GIVES(std::string(10, '\0'), root().pread(fd, 10, (int64_t{1} << 40) - 10));
}

TEST_P(Sparse, SeekFindsDataAndHoles) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  OK(root().pwrite(fd, std::string(4096, 'x'), 8192));
  OK(root().pwrite(fd, std::string(4096, 'x'), 65536));
  OK(root().ftruncate(fd, 100000));
  GIVES("8192", root().seek(fd, 0, SEEK_DATA));
  GIVES("9000", root().seek(fd, 9000, SEEK_DATA));
  GIVES("12288", root().seek(fd, 8192, SEEK_HOLE));
  GIVES("65536", root().seek(fd, 12288, SEEK_DATA));
  GIVES("0", root().seek(fd, 0, SEEK_HOLE));
  GIVES("69632", root().seek(fd, 65536, SEEK_HOLE));
  FAILS(ENXIO, root().seek(fd, 69632, SEEK_DATA));
  GIVES("99999", root().seek(fd, 99999, SEEK_HOLE));
  FAILS(ENXIO, root().seek(fd, 100000, SEEK_HOLE));
  FAILS(ENXIO, root().seek(fd, 100000, SEEK_DATA));
  FAILS(ENXIO, root().seek(fd, -1, SEEK_DATA));
}

TEST_P(Sparse, AFileWithoutHolesEndsInOne) {
  OK(root().write_file("f", std::string(8192, 'x')));
  int fd = must(root().open("f", O_RDONLY));
  GIVES("0", root().seek(fd, 0, SEEK_DATA));
  GIVES("8192", root().seek(fd, 0, SEEK_HOLE));
  OK(root().write_file("empty", ""));
  fd = must(root().open("empty", O_RDONLY));
  FAILS(ENXIO, root().seek(fd, 0, SEEK_DATA));
  FAILS(ENXIO, root().seek(fd, 0, SEEK_HOLE));
}

// ext4 beside them: tmpfs has only the first and the second kind of change.
CONFORMANCE_SUITE_ON(Ranges, Which::kExt4);

constexpr int kKeep = FALLOC_FL_KEEP_SIZE;

TEST_P(Ranges, ReserveGrowsUnlessToldNotTo) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  OK(root().write(fd, "abc"));
  OK(root().fallocate(fd, kKeep, 0, 10000));
  EXPECT_EQ(must(root().fstat(fd)).size, 3u);
  OK(root().fallocate(fd, 0, 0, 10000));
  EXPECT_EQ(must(root().fstat(fd)).size, 10000u);
  GIVES(std::string("abc\0", 4), root().pread(fd, 4, 0));
  GIVES(std::string(100, '\0'), root().pread(fd, 200, 9900));
  OK(root().fallocate(fd, 0, 100, 100));
  EXPECT_EQ(must(root().fstat(fd)).size, 10000u);
}

TEST_P(Ranges, PunchMakesZerosAndHoles) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  OK(root().write(fd, std::string(20000, 'x')));
  OK(root().fallocate(fd, FALLOC_FL_PUNCH_HOLE | kKeep, 100, 12188));
  std::string expected = std::string(100, 'x') + std::string(12188, '\0') + std::string(7712, 'x');
  GIVES(expected, root().pread(fd, 30000, 0));
  GIVES("4096", root().seek(fd, 0, SEEK_HOLE));
  GIVES("12288", root().seek(fd, 4096, SEEK_DATA));
  OK(root().fallocate(fd, FALLOC_FL_PUNCH_HOLE | kKeep, 15000, 100000));
  EXPECT_EQ(must(root().fstat(fd)).size, 20000u);
}

TEST_P(Ranges, ZeroMakesZerosAndMayGrow) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  OK(root().write(fd, std::string(10000, 'x')));
  OK(root().fallocate(fd, FALLOC_FL_ZERO_RANGE | kKeep, 5000, 10000));
  EXPECT_EQ(must(root().fstat(fd)).size, 10000u);
  GIVES(std::string(5000, 'x') + std::string(5000, '\0'), root().pread(fd, 20000, 0));
  OK(root().fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 12000));
  GIVES(std::string(12000, '\0'), root().pread(fd, 20000, 0));
}

TEST_P(Ranges, RefuseWhatMakesNoSense) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  FAILS(EINVAL, root().fallocate(fd, 0, 0, 0));
  FAILS(EINVAL, root().fallocate(fd, 0, -1, 10));
  FAILS(EINVAL, root().fallocate(fd, 0, 0, -1));
  FAILS(EOPNOTSUPP, root().fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10));
  FAILS(EOPNOTSUPP, root().fallocate(fd, 0x4000, 0, 10));
  FAILS(EFBIG, root().fallocate(fd, 0, INT64_MAX - 10, 20));
  OK(root().mkdir("d"));
  int reader = must(root().open("f", O_RDONLY)), directory = must(root().open("d", O_RDONLY));
  FAILS(EBADF, root().fallocate(reader, 0, 0, 10));
  FAILS(EBADF, root().fallocate(directory, 0, 0, 10));
}

CONFORMANCE_SUITE_ON(Shifts, Which::kExt4);

TEST_P(Shifts, CollapseCutsOut) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  OK(root().write(fd, std::string(4096, 'a') + std::string(8192, 'b') + std::string(1000, 'c')));
  OK(root().fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 8192));
  GIVES(std::string(4096, 'a') + std::string(1000, 'c'), root().pread(fd, 20000, 0));
}

TEST_P(Shifts, InsertMakesRoom) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  OK(root().write(fd, std::string(4096, 'a') + std::string(1000, 'c')));
  OK(root().fallocate(fd, FALLOC_FL_INSERT_RANGE, 4096, 4096));
  GIVES(std::string(4096, 'a') + std::string(4096, '\0') + std::string(1000, 'c'),
        root().pread(fd, 20000, 0));
}

TEST_P(Shifts, ShiftsAreOfWholeBlocksWithinTheFile) {
  int fd = must(root().open("f", O_RDWR | O_CREAT));
  OK(root().write(fd, std::string(16384, 'a')));
  FAILS(EINVAL, root().fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 100, 4096));
  FAILS(EINVAL, root().fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 100));
  FAILS(EINVAL, root().fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 8192, 8192));
  FAILS(EINVAL, root().fallocate(fd, FALLOC_FL_INSERT_RANGE, 100, 4096));
  FAILS(EINVAL, root().fallocate(fd, FALLOC_FL_INSERT_RANGE, 16384, 4096));
  FAILS(EOPNOTSUPP, root().fallocate(fd, FALLOC_FL_COLLAPSE_RANGE | kKeep, 0, 4096));
  GIVES(std::string(16384, 'a'), root().pread(fd, 20000, 0));
}

CONFORMANCE_SUITE(CopyRange);

TEST_P(CopyRange, CopiesBytesAndMovesPositions) {
  OK(root().write_file("f", "abcdefgh"));
  int from = must(root().open("f", O_RDONLY)), to = must(root().open("g", O_RDWR | O_CREAT));
  int64_t from_offset = 2, to_offset = 4;
  GIVES("3", root().copy_file_range(from, &from_offset, to, &to_offset, 3));
  EXPECT_EQ(from_offset, 5);
  EXPECT_EQ(to_offset, 7);
  GIVES(std::string("\0\0\0\0cde", 7), root().read_file("g"));
  GIVES("8", root().copy_file_range(from, nullptr, to, nullptr, 100));
  GIVES("8", root().seek(from, 0, SEEK_CUR));
  GIVES("8", root().seek(to, 0, SEEK_CUR));
  GIVES("abcdefgh", root().read_file("g"));
  GIVES("0", root().copy_file_range(from, nullptr, to, nullptr, 100));
}

TEST_P(CopyRange, OfWholeBlocksIsACopyAllTheSame) {
  OK(root().write_file("f", std::string(100000, 'x')));
  int from = must(root().open("f", O_RDWR)), to = must(root().open("g", O_RDWR | O_CREAT));
  int64_t from_offset = 0, to_offset = 0;
  GIVES("100000", root().copy_file_range(from, &from_offset, to, &to_offset, 100000));
  OK(root().pwrite(from, "changed", 50000));
  GIVES(std::string(100000, 'x'), root().read_file("g"));
}

TEST_P(CopyRange, WithinAFileMustNotOverlap) {
  OK(root().write_file("f", "abcdefgh"));
  int fd = must(root().open("f", O_RDWR));
  int64_t from = 0, to = 2;
  FAILS(EINVAL, root().copy_file_range(fd, &from, fd, &to, 4));
  to = 4;
  GIVES("4", root().copy_file_range(fd, &from, fd, &to, 4));
  GIVES("abcdabcd", root().read_file("f"));
}

TEST_P(CopyRange, RefusesDescriptorsThatCannot) {
  OK(root().write_file("f", "abc"));
  OK(root().mkdir("d"));
  int reader = must(root().open("f", O_RDONLY)), writer = must(root().open("g", O_WRONLY | O_CREAT));
  int appender = must(root().open("g", O_WRONLY | O_APPEND)), directory = must(root().open("d", O_RDONLY));
  FAILS(EBADF, root().copy_file_range(writer, nullptr, writer, nullptr, 1));
  FAILS(EBADF, root().copy_file_range(reader, nullptr, reader, nullptr, 1));
  FAILS(EBADF, root().copy_file_range(reader, nullptr, appender, nullptr, 1));
  FAILS(EISDIR, root().copy_file_range(directory, nullptr, writer, nullptr, 1));
  FAILS(EISDIR, root().copy_file_range(reader, nullptr, directory, nullptr, 1));
  int64_t negative = -1;
  FAILS(EOVERFLOW, root().copy_file_range(reader, &negative, writer, nullptr, 1));
  negative = -10;
  FAILS(EINVAL, root().copy_file_range(reader, &negative, writer, nullptr, 1));
}

}  // namespace
}  // namespace reprise::conformance
