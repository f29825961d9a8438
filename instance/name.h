// What a volume is called where something is said of it: by its store, if it has one on disk.
#pragma once

#include <string>

#include "store/store.h"

namespace reprise::instance {

inline std::string name_of(const std::string& store_path) {
  return store_path.empty() ? "the volume in memory" : store_path;
}
inline std::string name_of(const store::Store& store) {
  return name_of(store.path());
}

}  // namespace reprise::instance
