// A fs::Guest as Calls.
#pragma once

#include "tests/posix/calls.h"

namespace reprise::posix {

// The filesystem outlives it.
std::unique_ptr<Calls> guest_calls(fs::Filesystem& filesystem, const Credentials& who);

}  // namespace reprise::posix
