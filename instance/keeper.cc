#include "instance/keeper.h"

#include <chrono>
#include <string>

#include "base/log.h"

namespace reprise::instance {
namespace {

// A journal may get over its limit by what is written in this time and while a checkpoint is made.
constexpr auto kPause = std::chrono::milliseconds(500);

}  // namespace

Keeper::Keeper(Instance& instance, std::function<std::vector<journal::Vector>()> peers)
    : instance_(instance), peers_(std::move(peers)), thread_([this] { run(); }) {}

Keeper::~Keeper() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stopped_.notify_one();
  thread_.join();
}

void Keeper::run() {
  std::string said;
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, kPause, [&] { return stopping_; })) {
    lock.unlock();
    Status status = instance_.tend(peers_());
    std::string wrong = status ? "" : status.error().message();
    if (!wrong.empty() && wrong != said)
      log_warning("{}; the journal stays as it is, and this is tried again", wrong);
    said = std::move(wrong);
    lock.lock();
  }
}

}  // namespace reprise::instance
