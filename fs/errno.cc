#include "fs/errno.h"

#include <cstring>
#include <string>
#include <vector>

namespace reprise::fs {
namespace {

constexpr int kErrnoMax = 133;  // EHWPOISON, the highest that Linux has

std::vector<std::string> all_texts() {
  std::vector<std::string> texts;
  for (int value = 0; value <= kErrnoMax; ++value) {
    const char* name = strerrorname_np(value);
    const char* description = strerrordesc_np(value);
    texts.push_back(name == nullptr ? "errno " + std::to_string(value)
                                    : std::string(description) + " (" + name + ")");
  }
  texts.push_back("unknown errno");
  return texts;
}

}  // namespace

const char* errno_text(Errno value) {
  static const std::vector<std::string> texts = all_texts();
  int index = static_cast<int>(value);
  return texts[static_cast<size_t>(index < 0 || index > kErrnoMax ? kErrnoMax + 1 : index)].c_str();
}

}  // namespace reprise::fs
