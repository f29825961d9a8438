// CHECK: a claim about this program itself, always on. It never judges input: bad input is an Error or an
// Errno. A failed check prints where and what to stderr and aborts.
#pragma once

namespace reprise {

[[noreturn]] void check_failed(const char* file, int line, const char* claim);

}  // namespace reprise

#define CHECK(claim)                                                    \
  (__builtin_expect(static_cast<bool>(claim), 1) ? static_cast<void>(0) \
                                                 : ::reprise::check_failed(__FILE__, __LINE__, #claim))
