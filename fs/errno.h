// How fs/ answers: a value or a POSIX errno, nothing allocated.
#pragma once

#include <cerrno>
#include <expected>

#include "base/error.h"  // TRY

namespace reprise::fs {

// An errno value, always positive. The numbers are Linux's.
enum class Errno : int {};

template <class T>
using Outcome = std::expected<T, Errno>;

inline std::unexpected<Errno> errno_of(int value) {
  return std::unexpected(Errno{value});
}

// "No such file or directory (ENOENT)"
const char* errno_text(Errno value);

}  // namespace reprise::fs
