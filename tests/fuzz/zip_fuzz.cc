#include "tests/fuzz/archive_law.h"
#include "tests/fuzz/target.h"

namespace reprise::fuzz {

void fuzz_zip(ByteView input) {
  snapshot::MemoryFile file{std::string(as_text(input))};
  fs::Head head = fs::Head::create({});
  auto imported = snapshot::import_zip(head, file, fuzz_import_options());
  if (imported) check_imported(head, *imported);
}

}  // namespace reprise::fuzz

REPRISE_FUZZ_TARGET(reprise::fuzz::fuzz_zip)
