// The Cap'n Proto schema of this folder, as every file that needs it includes it.
#pragma once

#ifdef __clang__
// Cap'n Proto 0.9.2 compares a literal with a kj::StringPtr in a way that clang finds ambiguous from C++20 on
// unless another candidate is in sight first.
namespace kj {
class StringPtr;
}
bool operator==(const char* left, kj::StringPtr right);
#endif

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include "journal/journal.capnp.h"
