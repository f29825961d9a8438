// write_seeds DIRECTORY: puts the seeds of every target into DIRECTORY/TARGET/, where libFuzzer takes them
// from.
#include <fmt/format.h>

#include "base/disk.h"
#include "tests/fuzz/target.h"

namespace {

reprise::Status write_seeds(const std::string& path) {
  for (const reprise::fuzz::Target& target : reprise::fuzz::targets()) {
    auto directory = TRY(reprise::open_host_directory(path + "/" + target.name, true));
    int n = 0;
    for (const reprise::Bytes& seed : target.seeds())
      TRY(directory->replace_file(fmt::format("seed-{}", n++), seed));
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: write_seeds DIRECTORY\n");
    return 2;
  }
  if (auto written = write_seeds(argv[1]); !written) {
    fmt::print(stderr, "{}\n", written.error().message());
    return 3;
  }
}
