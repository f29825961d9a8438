#include "bench/memory.h"

#include <malloc.h>

#include <fstream>
#include <string>

#include "base/check.h"

namespace reprise::bench {
namespace {

double bytes_in(const char* file, const std::string& which) {
  std::ifstream lines(file);
  for (std::string word; lines >> word;) {
    double kilobytes;
    if (word == which + ":" && lines >> kilobytes) return kilobytes * 1024;
  }
  CHECK(false && "no such line");
  return 0;
}

}  // namespace

double resident_bytes() {
  ::malloc_trim(0);
  return bytes_in("/proc/self/status", "VmRSS");
}

double anonymous_bytes() {
  ::malloc_trim(0);
  return bytes_in("/proc/self/status", "RssAnon");
}

double peak_of(const std::function<void()>& work) {
  double before = resident_bytes();
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak begins anew
  work();
  return bytes_in("/proc/self/status", "VmHWM") - before;
}

double kernel_bytes() {
  return bytes_in("/proc/meminfo", "Slab");
}

}  // namespace reprise::bench
