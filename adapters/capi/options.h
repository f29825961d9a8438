// Structures that a host fills in, of this version of the library or an older one, which had less.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "adapters/capi/answers.h"

namespace reprise::capi {

// Puts what the host has said over the defaults; 0, or what the call returns.
template <class Options>
int take_options(Options& into, const Options* given, const char* call) {
  if (given->size < sizeof given->size || given->size > sizeof(Options))
    return refuse(
        EINVAL, fmt::format("{}: options.size: expected at most {}, which this version knows, found {}", call,
                            sizeof(Options), given->size));
  std::memcpy(&into, given, given->size);
  return 0;
}

}  // namespace reprise::capi
