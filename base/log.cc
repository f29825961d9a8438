#include "base/log.h"

#include <spdlog/spdlog.h>

#include <mutex>

namespace reprise {
namespace {

std::mutex mutex;
// Never destroyed: threads may have something to say until the very end.
LogSink& sink() {
  static auto& sink = *new LogSink;
  return sink;
}

}  // namespace

void log(LogLevel level, std::string_view line) {
  std::lock_guard lock(mutex);
  if (sink()) return sink()(level, line);
  spdlog::log(level == LogLevel::kDebug ? spdlog::level::debug : spdlog::level::warn, "{}", line);
}

void set_log_sink(LogSink wanted) {
  std::lock_guard lock(mutex);
  sink() = std::move(wanted);
}

}  // namespace reprise
