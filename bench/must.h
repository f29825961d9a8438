// A benchmark that cannot go on has nothing to report: it says why, and the process ends. Threads: any.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "fs/errno.h"

namespace reprise::bench {

[[noreturn]] inline void die(std::string_view what) {
  fmt::print(stderr, "reprise-bench: {}\n", what);
  std::_Exit(3);
}

// The value of a result, if it has one.
template <class T>
T must(Result<T> result) {
  if (!result) die(result.error().message());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

template <class T>
void must(const fs::Outcome<T>& outcome, std::string_view what) {
  if (!outcome) die(fmt::format("{}: {}", what, fs::errno_text(outcome.error())));
}

}  // namespace reprise::bench
