// What tests of the C interface have in common: a folder for each, and the errno of what a call throws.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "reprise.hpp"
#include "tests/store/temp_directory.h"

namespace reprise::host {

class Capi : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return folder_ / name; }

 private:
  TempDirectory folder_;
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
