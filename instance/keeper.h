// Keeper: a thread that tends an instance while it is live (Instance::tend).
//
// What goes wrong is logged, each reason once in a row, and tried again: nothing is lost by a checkpoint that
// could not be made, since the journal has everything.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
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
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace reprise::instance
