// What tests of the C interface have in common: a folder for each, and the errno of what a call throws.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>

#include "reprise.hpp"

namespace reprise::host {

class Capi : public testing::Test {
 protected:
  Capi() {
    folder_ = (std::filesystem::temp_directory_path() / "reprise-capi-XXXXXX").string();
    if (::mkdtemp(folder_.data()) == nullptr) std::abort();
  }
  ~Capi() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }

 private:
  std::string folder_;
};

inline int error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return 0;
}

}  // namespace reprise::host
