// Archives that mean harm, one for each kind, and what they are answered. docs/import-export.md lists them.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "crafted.h"
#include "sample_tree.h"

namespace reprise::snapshot {
namespace {

using testing::HasSubstr;

struct Attempt {
  fs::Head head = fs::Head::create({});
  Result<Imported> result;
};

Attempt import_bytes(const std::string& bytes, const ImportOptions& options = {}) {
  Attempt attempt;
  attempt.result = import_stream(attempt.head, std::make_unique<MemorySource>(bytes), options);
  return attempt;
}

void expect_refused(const std::string& bytes, const std::string& entry, const std::string& why,
                    const ImportOptions& options = {}) {
  Attempt attempt = import_bytes(bytes, options);
  ASSERT_FALSE(attempt.result) << entry << ": " << why;
  EXPECT_THAT(attempt.result.error().message(), HasSubstr("crafted: "));
  EXPECT_THAT(attempt.result.error().message(), HasSubstr(entry));
  EXPECT_THAT(attempt.result.error().message(), HasSubstr(why));
}

// As an entry of both formats.
void expect_refused_in_both(const std::string& name, const std::string& shown, const std::string& why) {
  expect_refused(tar_of({tar_entry(name, '0', "x")}), shown, why);
  expect_refused(zip_of({{.name = name, .body = "x"}}), shown, why);
}

TEST(ArchiveSafety, NoNameLeadsOutside) {
  for (const char* name : {"../evil", "a/../../evil", "a/..", ".."})
    expect_refused_in_both(name, name, "\"..\" in it");
  for (const char* name : {"/etc/passwd", "//etc/passwd"})
    expect_refused_in_both(name, name, "an absolute one");
  for (const char* name : {"C:\\evil", "c:/evil", "Z:"})
    expect_refused_in_both(name, printable(name), "drive letter");
  for (const char* name : {"\\\\server\\share", "\\evil"})
    expect_refused_in_both(name, printable(name), "absolute");
  for (const char* name : {"..\\evil", "a\\..\\..\\evil", "a/b\\.."})
    expect_refused_in_both(name, printable(name), "\"..\"");
  expect_refused(zip_of({{.name = std::string("a\0/../b", 7), .body = "x"}}), "a\\x00/../b", "NUL");
  expect_refused(tar_of({pax_entry({{"path", std::string("a\0b", 3)}}), tar_entry("ok")}), "a\\x00b", "NUL");
  // A pax header may give any name to an innocent one, and a GNU one, too.
  expect_refused(tar_of({pax_entry({{"path", "../evil"}}), tar_entry("ok")}), "../evil", "\"..\"");
  expect_refused(tar_of({tar_entry("l", 'L', "../evil"), tar_entry("ok")}), "../evil", "\"..\"");
}

TEST(ArchiveSafety, BackslashesOfSystemsThatPartNamesByThemAreRefused) {
  expect_refused(zip_of({{.name = "a\\b", .body = "x", .made_by = 20}}), "a\\\\b", "backslash");
  Attempt unix_name = import_bytes(zip_of({{.name = "a\\b", .body = "x"}}));
  ASSERT_TRUE(unix_name.result) << unix_name.result.error().message();
  EXPECT_TRUE(unix_name.head.lookup(kRootInode, "a\\b"));
}

TEST(ArchiveSafety, NothingGoesThroughASymlink) {
  expect_refused(tar_of({tar_entry("link", '2', "", "/tmp"), tar_entry("link/evil", '0', "x")}), "link/evil",
                 "a symlink");
  expect_refused(
      zip_of({{.name = "link", .body = "/tmp", .mode = 0120777}, {.name = "link/evil", .body = "x"}}),
      "link/evil", "a symlink");
  expect_refused(tar_of({tar_entry("link", '2', "", "/tmp"), tar_entry("link", '5')}), "link",
                 "another file");
  // One that was there before.
  TreeMaker tree;
  tree.create(kRootInode, "there", S_IFLNK | 0777, "/tmp");
  auto result = import_stream(
      tree.head, std::make_unique<MemorySource>(tar_of({tar_entry("there/evil", '0', "x")})), {});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message(), HasSubstr("a symlink"));
}

TEST(ArchiveSafety, HardLinksLeadToEarlierEntriesOnly) {
  for (const char* target : {"/etc/passwd", "../x", "missing", "directory", "before"}) {
    TreeMaker tree;
    tree.file(kRootInode, "before", "x");
    std::string bytes = tar_of({tar_entry("directory", '5'), tar_entry("link", '1', "", target)});
    auto result = import_stream(tree.head, std::make_unique<MemorySource>(bytes), {});
    ASSERT_FALSE(result) << target;
    EXPECT_THAT(result.error().message(), HasSubstr(target));
  }
}

TEST(ArchiveSafety, EntriesOfAZipLieApart) {
  std::string body(1000, 'x');
  expect_refused(zip_of({{.name = "a", .body = body}, {.name = "a", .body = body, .offset = 0}}), "entry a",
                 "overlaps a");
  // The first reaches over the second.
  ZipPart first{.name = "a", .body = std::string(200, 'x')};
  std::string bytes = zip_of({first, {.name = "b", .body = "y"}});
  size_t sizes = 18;  // of the first local header
  uint32_t longer = 210;
  for (size_t at : {sizes, sizes + 4, bytes.size() - 22 - 47 - 47 + 20, bytes.size() - 22 - 47 - 47 + 24})
    bytes.replace(at, 4, reinterpret_cast<const char*>(&longer), 4);
  expect_refused(bytes, "entry b", "overlaps a");
  expect_refused(zip_of({{.name = "a", .body = "x", .packed_size = 100'000}}), "entry a", "as many bytes");
  expect_refused(zip_of({{.name = "a", .body = std::string(10, 'x'), .size = 5000, .packed_size = 5000}}),
                 "entry a", "reach into it");
}

TEST(ArchiveSafety, HeadersThatLieAreRefused) {
  expect_refused(zip_of({{.name = "a", .body = "x", .local_name = "b"}}), "entry a", "says");
  expect_refused(zip_of({{.name = "a", .body = std::string(100, 'x'), .offset = 7}}), "entry a",
                 "its header at byte 7");
  expect_refused(zip_of({{.name = "a", .body = "x"}}, 2), "", "a directory of 2 entries");
  expect_refused(zip_of({{.name = "a", .body = "x"}, {.name = "b", .body = "y"}}, 1), "",
                 "1 entries, found more");
  expect_refused(zip_of({{.name = "a", .body = "x"}}, 60'000), "", "a directory of 60000 entries");
  expect_refused(zip_of({{.name = "a", .body = "hello", .crc = 1}}), "entry a", "CRC");
  std::string packed = deflated(std::string(5000, 'x'));
  expect_refused(
      zip_of({{.name = "a", .body = std::string(5000, 'x'), .method = 8, .packed = packed, .size = 4000}}),
      "entry a", "found");
  expect_refused(
      zip_of({{.name = "a", .body = std::string(5000, 'x'), .method = 8, .packed = packed, .size = 6000}}),
      "entry a", "found");
  expect_refused(zip_of({{.name = "a", .body = "x", .method = 8, .packed = "x", .size = 1'000'000}}),
                 "entry a", "out of 1");
  // A name that ends in a slash is no file's.
  expect_refused(zip_of({{.name = "a/", .body = "x", .mode = 0100644}}), "entry a/", "a directory");
  std::string tar = tar_of({tar_entry("a", '0', "x")});
  tar[0] = 'b';
  expect_refused(tar_of({tar_entry("ok", '0', "x")}).substr(0, 1024) + tar, "at byte 1536", "checksum");
  expect_refused(tar_of({tar_entry("a", '5', "x")}), "entry a", "no bytes in what is no file");
  expect_refused(tar_of({tar_entry("a", '1', "x", "b")}), "entry a", "no bytes in what is no file");
  expect_refused(tar_of({pax_entry({{"size", "999999999999999999"}}), tar_entry("a", '0', "x")}), "entry a",
                 "");
  expect_refused(tar_of({pax_entry({{"path", "x"}}, 'g'), tar_entry("a", '0', "x")}), "",
                 "no path for all entries");
}

TEST(ArchiveSafety, SparseMapsThatCannotBeAreRefused) {
  auto sparse = [](const std::string& size, const std::string& map, const std::string& body) {
    return tar_of(
        {pax_entry({{"GNU.sparse.size", size}, {"GNU.sparse.map", map}}), tar_entry("a", '0', body)});
  };
  EXPECT_TRUE(import_bytes(sparse("10", "2,3", "abc")).result);
  expect_refused(sparse("10", "2,4", "abc"), "entry a", "together");
  expect_refused(sparse("10", "8,3", "abc"), "entry a", "within 10 bytes");
  expect_refused(sparse("10", "5,1,2,2", "abc"), "entry a", "in order");
  expect_refused(sparse("10", "5", "abc"), "entry a", "one more place");
  expect_refused(sparse("10", "18446744073709551615,3", "abc"), "entry a", "a number");
}

TEST(ArchiveSafety, BombsAreRefusedBeforeTheyAreUnpacked) {
  // Many names.
  std::vector<TarEntry> many;
  for (int i = 0; i < 20; i++) many.push_back(tar_entry("f" + std::to_string(i)));
  ImportOptions few;
  few.limits.entries = 10;
  expect_refused(tar_of(many), "f10", "--max-entries", few);
  expect_refused(zip_of({{.name = "a"}, {.name = "b/c/d/e/f/g/h/i/j/k/l"}}), "b/c/d", "--max-entries", few);
  // Depth.
  std::string deep;
  for (int i = 0; i < 300; i++) deep += "d/";
  expect_refused(tar_of({pax_entry({{"path", deep}}), tar_entry("x", '5')}), "d/d/d", "--max-depth");
  // The size it says, long before it is there.
  ImportOptions small;
  small.limits.file_bytes = 1000;
  expect_refused(tar_of({tar_entry("a", '0', std::string(1001, 'x'))}), "entry a", "--max-file-size", small);
  expect_refused(
      tar_of({pax_entry({{"GNU.sparse.size", "999999999999"}, {"GNU.sparse.map", "0,0"}}), tar_entry("a")}),
      "entry a", "--max-file-size", small);
  expect_refused(tar_of({pax_entry({{"GNU.sparse.size", "99999999999999999"}, {"GNU.sparse.map", "0,0"}}),
                         tar_entry("a")}),
                 "entry a", "--max-file-size");
  ImportOptions little;
  little.limits.bytes = 10'000;
  little.limits.unpacked_bytes = 100'000;
  expect_refused(
      tar_of({tar_entry("a", '0', std::string(9'000, 'x')), tar_entry("b", '0', std::string(9'000, 'x'))}),
      "entry b", "--max-size", little);
  std::string zeros(200'000, '\0');
  expect_refused(zip_of({{.name = "a", .body = zeros, .method = 8, .packed = deflated(zeros)}}), "entry a",
                 "--max-size", little);
  // Everything out of nothing: what takes room, and zeros, which do not.
  ImportOptions ratio;
  std::string same(80 << 20, 'x');
  std::string bomb = zip_of({{.name = "a", .body = same, .method = 8, .packed = deflated(same)}});
  expect_refused(bomb, "entry a", "--max-ratio", ratio);
  ratio.limits.ratio = 2000;
  EXPECT_TRUE(import_bytes(bomb, ratio).result);
  ratio.limits.ratio = 100;
  std::string nothing(80 << 20, '\0');
  Attempt holes =
      import_bytes(zip_of({{.name = "a", .body = nothing, .method = 8, .packed = deflated(nothing)}}), ratio);
  ASSERT_TRUE(holes.result) << holes.result.error().message();
  EXPECT_EQ(holes.head.usage().blocks, 0u) << "zeros become a hole";
  EXPECT_EQ(holes.head.stat(holes.head.lookup(kRootInode, "a")->inode)->size, nothing.size());
}

TEST(ArchiveSafety, WhatIsCutOffIsNeverTakenForWhole) {
  std::string tar = tar_of({tar_entry("a", '0', std::string(3000, 'x')), pax_entry({{"mtime", "1.5"}}),
                            tar_entry("b", '5'), tar_entry("c", '0', "hello")});
  for (size_t size = 0; size + 512 < tar.size(); size += 64)
    EXPECT_FALSE(import_bytes(tar.substr(0, size)).result) << size;
  EXPECT_FALSE(import_bytes(tar.substr(0, tar.size() - 512)).result) << "one block of zeros is no end";
  EXPECT_TRUE(import_bytes(tar).result);
  std::string zip = zip_of({{.name = "a", .body = "hello"}, {.name = "b", .body = std::string(500, 'x')}});
  for (size_t size = 0; size < zip.size(); size++)
    EXPECT_FALSE(import_bytes(zip.substr(0, size)).result) << size;
  EXPECT_TRUE(import_bytes(zip).result);
}

TEST(ArchiveSafety, WhatIsEncryptedOrPackedInAnotherWayIsRefusedByName) {
  expect_refused(zip_of({{.name = "plain", .body = "x"}, {.name = "secret", .body = "x", .flags = 1}}),
                 "entry secret", "encrypted");
  expect_refused(zip_of({{.name = "secret", .body = "x", .flags = 1 << 6}}), "entry secret", "encrypted");
  expect_refused(zip_of({{.name = "a", .body = "x", .method = 14}}), "entry a", "method 14");
  expect_refused(tar_of({tar_entry("a", 'M', "x")}), "entry a", "volumes");
  expect_refused(tar_of({tar_entry("a", '~', "x")}), "entry a", "'~'");
  expect_refused("no archive at all", "", "expected a ZIP or a tar, found something else");
  expect_refused("", "", "found nothing");
}

TEST(ArchiveSafety, NamesThatComeTwiceOrDifferInCaseAreReported) {
  expect_refused(zip_of({{.name = "a", .body = "1"}, {.name = "a", .body = "2"}}), "entry a",
                 "found it again");
  expect_refused(zip_of({{.name = "a", .body = "1"}, {.name = "./a", .body = "2"}}), "entry a",
                 "found it again");
  expect_refused(tar_of({tar_entry("a", '0', "x"), tar_entry("a/b", '0', "x")}), "a/b", "another file");
  expect_refused(tar_of({tar_entry("a/b", '0', "x"), tar_entry("a", '0', "x")}), "entry a",
                 "nothing but one takes its place");
  Attempt again = import_bytes(tar_of({tar_entry("a", '0', "1"), tar_entry("README", '0', "x"),
                                       tar_entry("a", '0', "22"), tar_entry("readme", '0', "y")}));
  ASSERT_TRUE(again.result) << again.result.error().message();
  EXPECT_EQ(again.result->duplicates, 1u);
  EXPECT_EQ(again.result->first_duplicate, "a");
  EXPECT_EQ(again.result->case_collisions, 1u);
  EXPECT_EQ(again.result->first_case_collision, "readme");
  EXPECT_EQ(again.head.stat(again.head.lookup(kRootInode, "a")->inode)->size, 2u);
  EXPECT_EQ(again.head.check_invariants(), "");
}

// Short names, in directories whose ids are near each other.
TEST(ArchiveSafety, NamesOfOtherDirectoriesAreNoOtherSpelling) {
  std::vector<TarEntry> entries;
  for (int directory = 0; directory < 1000; directory++)
    for (int file = 0; file < 10; file++)
      entries.push_back(tar_entry(fmt::format("p{}/d1{}", directory, file), '0', ""));
  Attempt attempt = import_bytes(tar_of(entries));
  ASSERT_TRUE(attempt.result) << attempt.result.error().message();
  EXPECT_EQ(attempt.result->case_collisions, 0u) << attempt.result->first_case_collision;
}

TEST(ArchiveSafety, TerminalEscapesAreShownEscaped) {
  Attempt attempt = import_bytes(tar_of({tar_entry("\x1b[31mred/../x", '0', "x")}));
  ASSERT_FALSE(attempt.result);
  EXPECT_THAT(attempt.result.error().message(), HasSubstr("\\x1b[31mred"));
  EXPECT_THAT(attempt.result.error().message(), testing::Not(HasSubstr("\x1b")));
}

TEST(ArchiveSafety, PrivilegesAreDroppedUnlessAskedFor) {
  TarEntry setuid = tar_entry("setuid", '0', "x");
  setuid.header.mode = 06755;
  TarEntry device = tar_entry("null", '3');
  device.header.device_major = 1;
  device.header.device_minor = 3;
  std::vector<TarEntry> entries = {setuid, device, tar_entry("null again", '1', "", "null"),
                                   pax_entry({{"SCHILY.xattr.trusted.t", "1"},
                                              {"SCHILY.xattr.security.capability", "1"},
                                              {"SCHILY.xattr.user.u", "1"},
                                              {"SCHILY.xattr.strange", "1"}}),
                                   tar_entry("marked", '0', "x")};
  Attempt tame = import_bytes(tar_of(entries));
  ASSERT_TRUE(tame.result) << tame.result.error().message();
  EXPECT_EQ(tame.result->skipped_set_ids, 1u);
  EXPECT_EQ(tame.result->skipped_devices, 1u);
  EXPECT_EQ(tame.result->skipped_xattrs, 3u);
  EXPECT_EQ(tame.head.stat(tame.head.lookup(kRootInode, "setuid")->inode)->mode & 07777, 0755u);
  EXPECT_FALSE(tame.head.lookup(kRootInode, "null"));
  EXPECT_FALSE(tame.head.lookup(kRootInode, "null again"));
  InodeId marked = tame.head.lookup(kRootInode, "marked")->inode;
  EXPECT_TRUE(tame.head.get_xattr(marked, "user.u"));
  EXPECT_FALSE(tame.head.get_xattr(marked, "trusted.t"));

  Attempt all = import_bytes(tar_of(entries),
                             {.set_ids = true, .devices = true, .all_xattrs = true, .into = "", .now = {}});
  ASSERT_TRUE(all.result) << all.result.error().message();
  EXPECT_EQ(all.head.stat(all.head.lookup(kRootInode, "setuid")->inode)->mode & 07777, 06755u);
  EXPECT_EQ(all.head.stat(all.head.lookup(kRootInode, "null again")->inode)->nlink, 2u);
  EXPECT_TRUE(all.head.get_xattr(all.head.lookup(kRootInode, "marked")->inode, "trusted.t"));
  EXPECT_EQ(all.result->skipped_xattrs, 1u);
}

TEST(ArchiveSafety, SymlinksThatCannotBeAreRefused) {
  expect_refused(tar_of({tar_entry("l", '2', "", "")}), "entry l", "target");
  expect_refused(zip_of({{.name = "l", .body = std::string(5000, 'x'), .mode = 0120777}}), "entry l",
                 "at most 4095");
  expect_refused(zip_of({{.name = "l", .body = std::string("a\0b", 3), .mode = 0120777}}), "entry l",
                 "target");
}

}  // namespace
}  // namespace reprise::snapshot
