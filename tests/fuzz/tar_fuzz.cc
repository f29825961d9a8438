#include <fmt/format.h>

#include "tests/fuzz/archive_law.h"
#include "tests/fuzz/target.h"

namespace reprise::fuzz {

void fuzz_tar(ByteView input) {
  if (input.empty()) return;
  // Headers whose checksums match, so that it is the fields that are tried.
  std::string bytes(as_text(input.subspan(1)));
  bool mend = (input[0] & std::byte{1}) != std::byte{};
  for (size_t at = 0; mend && at + 512 <= bytes.size(); at += 512) {
    bool looks_like_one = bytes.compare(at + 257, 5, "ustar") == 0;
    if (!looks_like_one) continue;
    bytes.replace(at + 148, 8, 8, ' ');
    unsigned sum = 0;
    for (size_t i = at; i < at + 512; i++) sum += static_cast<unsigned char>(bytes[i]);
    bytes.replace(at + 148, 7, fmt::format("{:06o}", sum) + std::string(1, '\0'));
  }
  snapshot::MemorySource source(std::move(bytes));
  fs::Head head = fs::Head::create({});
  auto imported = snapshot::import_tar(head, source, fuzz_import_options());
  if (imported) check_imported(head, *imported);
}

}  // namespace reprise::fuzz

REPRISE_FUZZ_TARGET(reprise::fuzz::fuzz_tar)
