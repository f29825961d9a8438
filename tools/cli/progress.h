// How far something is that takes a while.
#pragma once

#include <string>
#include <string_view>

#include "replay/replayer.h"

namespace reprise::cli {

// Prints how far a replay is, on a terminal only, at most ten times a second; the line is wiped when it goes.
class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();
  bool operator()(const replay::ReplayProgress& progress);
  void show(std::string_view text);

 private:
  std::string what_;
  bool terminal_;
  bool shown_ = false;
  uint64_t last_ns_ = 0;
};

}  // namespace reprise::cli
