// What the libraries have to say beside what they return: a line each, for a person. Whoever makes the
// process decides where it goes. Threads: any.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string_view>
#include <utility>

namespace reprise {

enum class LogLevel { kDebug, kWarning };
// Called by one thread at a time; must not log itself.
using LogSink = std::function<void(LogLevel, std::string_view line)>;

void log(LogLevel level, std::string_view line);
// From now on; null: spdlog's default logger, as at the beginning.
void set_log_sink(LogSink sink);

template <class... Values>
void log_warning(fmt::format_string<Values...> format, Values&&... values) {
  log(LogLevel::kWarning, fmt::format(format, std::forward<Values>(values)...));
}
template <class... Values>
void log_debug(fmt::format_string<Values...> format, Values&&... values) {
  log(LogLevel::kDebug, fmt::format(format, std::forward<Values>(values)...));
}

}  // namespace reprise
