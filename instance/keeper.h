// Keeper: a thread that tends an instance while it is live (Instance::tend): twice a second, and with limits
// of size as soon as half of what may be written meanwhile is. While there is one, who writes beyond that
// waits.
//
// What goes wrong is logged, each reason once in a row, and tried again: nothing is lost by a checkpoint that
// could not be made, since the journal has everything.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "instance/instance.h"

namespace reprise::instance {

class Keeper {
 public:
  // `peers` says what the connected followers have; called on the thread.
  Keeper(Instance& instance, std::function<std::vector<journal::Vector>()> peers);
  ~Keeper();  // waits for what is being done

 private:
  void run();

  Instance& instance_;
  const std::function<std::vector<journal::Vector>()> peers_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace reprise::instance
