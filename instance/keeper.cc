#include "instance/keeper.h"

#include <chrono>
#include <string>

#include "base/log.h"

namespace reprise::instance {
namespace {

constexpr auto kPause = std::chrono::milliseconds(500);

}  // namespace

Keeper::Keeper(Instance& instance, std::function<std::vector<journal::Vector>()> peers)
    : instance_(instance), peers_(std::move(peers)) {
  if (instance_.retention().bounds()) instance_.allowance().begin();
  thread_ = std::thread([this] { run(); });
}

Keeper::~Keeper() {
  stopping_ = true;
  instance_.allowance().end();
  instance_.allowance().wake();
  thread_.join();
}

void Keeper::run() {
  std::string said;
  for (;;) {
    instance_.allowance().wait_until_short(kPause);
    if (stopping_) return;
    Status status = instance_.tend(peers_());
    std::string wrong = status ? "" : status.error().message();
    if (!wrong.empty() && wrong != said)
      log_warning("{}; the journal stays as it is, and this is tried again", wrong);
    said = std::move(wrong);
  }
}

}  // namespace reprise::instance
