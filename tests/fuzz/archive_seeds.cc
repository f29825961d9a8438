// Archives that are accepted, with everything in them that the readers know.
#include "tests/fuzz/archive_law.h"
#include "tests/fuzz/target.h"
#include "tests/snapshot/sample_tree.h"

namespace reprise::fuzz {
namespace {

snapshot::TreeMaker sample(bool with_nodes) {
  snapshot::TreeMaker tree;
  InodeId dir = tree.directory(kRootInode, "d");
  InodeId file = tree.file(dir, "f", std::string(600, 'x') + "end");
  tree.file(kRootInode, "caf\xe9", "not UTF-8");
  tree.create(dir, "l", S_IFLNK | 0777, "f");
  if (!with_nodes) return tree;
  tree.apply(fs::Link{.parent = dir, .name = "hard", .inode = file, .time = tree.tick()});
  tree.xattr(file, "user.x", "value");
  tree.create(dir, "fifo", S_IFIFO | 0644);
  tree.create(dir, "null", S_IFCHR | 0666, "", 0x103);
  InodeId sparse = tree.create(dir, "sparse", S_IFREG | 0644);
  tree.write(sparse, 100'000, "far");
  tree.file(dir, std::string(120, 'n'), "a long name");
  return tree;
}

Bytes bytes_of(std::string_view text) {
  ByteView bytes = as_bytes(text);
  return {bytes.begin(), bytes.end()};
}

}  // namespace

std::vector<Bytes> zip_seeds() {
  snapshot::MemoryFile file;
  snapshot::TreeMaker tree = sample(false);
  CHECK(snapshot::export_zip(tree.head, kRootInode, file, {}));
  std::string stored = snapshot::zip_of({{.name = "a/", .mode = 040755}, {.name = "a/b", .body = "hello"}});
  return {bytes_of(file.bytes()), bytes_of(stored)};
}

std::vector<Bytes> tar_seeds() {
  using snapshot::pax_entry, snapshot::tar_entry;
  snapshot::MemorySink sink;
  snapshot::TreeMaker tree = sample(true);
  CHECK(snapshot::export_tar(tree.head, kRootInode, sink, {.owners = false, .devices = true, .filter = {}}));
  std::string old = snapshot::tar_of(
      {tar_entry("long", 'L', std::string(150, 'n')), tar_entry("x", '0', "hello"),
       pax_entry({{"GNU.sparse.size", "9000"}, {"GNU.sparse.map", "4096,3"}}),
       tar_entry("sparse", '0', "abc"), pax_entry({{"mtime", "-1.25"}}, 'g'), tar_entry("y", '0', "z")});
  return {bytes_of("\1" + sink.bytes()), bytes_of("\1" + old), bytes_of(std::string(1, '\0') + old)};
}

}  // namespace reprise::fuzz
