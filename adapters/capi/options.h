// Structures that a host fills in. Of each there is one version so far; a later one is longer, and will take
// the sizes of those before it, and no other: a size that ends within a field would make half a pointer.
#pragma once

#include <fmt/format.h>

#include <cerrno>

#include "adapters/capi/answers.h"

namespace reprise::capi {

// Puts what the host has said over the defaults; 0, or what the call returns.
template <class Options>
int take_options(Options& into, const Options* given, const char* call) {
  if (given->size != sizeof(Options))
    return refuse(EINVAL, fmt::format("{}: options.size: expected {}, as this version has it, found {}", call,
                                      sizeof(Options), given->size));
  into = *given;
  return 0;
}

}  // namespace reprise::capi
