// What holds of every archive that is accepted, whatever its format: the tree is sound, within the limits,
// and comes back from a tar of ours as it is.
#pragma once

#include "base/check.h"
#include "snapshot/export.h"
#include "snapshot/import.h"
#include "tests/snapshot/crafted.h"

namespace reprise::fuzz {

inline snapshot::ImportOptions fuzz_import_options() {
  snapshot::ImportOptions options;
  options.limits = {.entries = 2'000,
                    .bytes = 8 << 20,
                    .file_bytes = 1 << 30,
                    .unpacked_bytes = 16 << 20,
                    .depth = 64,
                    .ratio = 100};
  options.set_ids = options.devices = options.all_xattrs = true;
  return options;
}

inline void check_imported(const fs::Head& head, const snapshot::Imported& imported) {
  CHECK(head.check_invariants().empty());
  CHECK(imported.entries <= 2'000 && imported.bytes <= 8 << 20);
  snapshot::MemorySink sink;
  snapshot::ExportOptions everything{
      .owners = false, .set_ids = true, .devices = true, .all_xattrs = true, .filter = {}};
  CHECK(snapshot::export_tar(head, kRootInode, sink, everything));
  fs::Head back = fs::Head::create({});
  snapshot::MemorySource source(sink.bytes());
  auto again = snapshot::import_tar(back, source, snapshot::ImportOptions::everything());
  CHECK(again);
  CHECK(*fs::content_digest(back) == *fs::content_digest(head));
}

}  // namespace reprise::fuzz
