// A run over a directory: the store that its changes go to, and what is said of them at the end.
#pragma once

#include <string>

#include "base/error.h"
#include "tools/cli/target.h"

namespace reprise::cli {

class OverlayRun {
 public:
  // Nothing is made yet. `store` is where the changes go; "" for a new one of its own name. What is there
  // must rest on that directory.
  static Result<OverlayRun> plan(const std::string& directory, const std::string& store);

  const std::string& directory() const { return directory_; }  // absolute, without links
  const std::string& store() const { return store_; }

  // Makes the store, where there is none.
  Status begin();
  // The command never ran: takes away what begin() made.
  void forget();
  // Says on stderr what is different from the directory as it was; an overlay of its own name in which
  // nothing is goes away. The instance is closed.
  Status end(const Target& target);

 private:
  std::string directory_, store_;
  bool own_name_ = false;  // made up here, with its folder
  bool made_ = false;
};

// The directory that the store rests on, if there is a store and it rests on one.
Result<std::optional<std::string>> rests_on(const std::string& store);

// Takes a whole overlay away. kInvalidArgument for any other store, kBusy names who uses it.
Status discard_overlay(const std::string& store);

}  // namespace reprise::cli
