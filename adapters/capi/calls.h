// What calls of an instance have in common: the way from a handle to the object, and what is refused on it.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <string>
#include <utility>

#include "adapters/capi/answers.h"
#include "adapters/capi/objects.h"
#include "adapters/capi/reprise.h"

namespace reprise::capi {

inline int refuse_null(const char* call, const char* what) {
  return refuse(EINVAL, fmt::format("{}: expected {}, found a null pointer", call, what));
}

inline std::string text_or(const char* text, const char* otherwise) {
  return text != nullptr ? text : otherwise;
}

inline int done(const Status& status) {
  return status ? 0 : refuse(status.error());
}

// The tree of an instance at a position (as `reprise diff STORE@POSITION` takes it), or now.
Result<fs::View> tree_at(Instance& instance, const char* position);

// Runs `body` with the instance that the handle names.
template <class Body>
auto with(const reprise_instance* handle, const char* call, const Body& body) noexcept {
  return guarded(call, [&]() -> decltype(body(std::declval<Instance&>())) {
    auto used = instances().use(handle, false);
    if (used.error != 0) return refuse_handle(used.error, call, "instance");
    return body(*used);
  });
}

}  // namespace reprise::capi
