#include "adapters/capi/answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace reprise::capi {
namespace {

thread_local std::string words;

int errno_of(const Error& error) {
  if (error.sys_errno() != 0) return error.sys_errno();
  switch (error.code()) {
    case Code::kInvalidArgument:
      return EINVAL;
    case Code::kNotFound:
      return ENOENT;
    case Code::kAlreadyExists:
      return EEXIST;
    case Code::kCorrupt:
    case Code::kDivergence:
      return EBADMSG;
    case Code::kUnsupported:
      return ENOTSUP;
    case Code::kIo:
      return EIO;
    case Code::kNoSpace:
      return ENOSPC;
    case Code::kBusy:
      return EBUSY;
    case Code::kWrongVolume:
      return EXDEV;
    case Code::kUnreachable:
      return EHOSTUNREACH;
    case Code::kTimeout:
      return ETIMEDOUT;
    case Code::kGap:
      return ESTALE;
    case Code::kDetached:
      return ENOTCONN;
    case Code::kReadOnly:
      return EROFS;
    case Code::kPermission:
    case Code::kUnauthorised:
      return EACCES;
    case Code::kCancelled:
      return ECANCELED;
  }
  return EIO;
}

}  // namespace

const char* last_error() {
  return words.c_str();
}

int refuse(int error, std::string text) {
  words = std::move(text);
  return -error;
}

int refuse(const Error& error) {
  return refuse(errno_of(error), error.message());
}

int refuse(fs::Errno error, const char* call, std::string_view path) {
  return refuse(static_cast<int>(error),
                fmt::format("{}{}{}: {}", call, path.empty() ? "" : " ", printable(path), errno_text(error)));
}

int refuse_handle(int error, const char* call, const char* kind) {
  switch (error) {
    case EBUSY:
      return refuse(error, fmt::format("{}: the {} is used by another thread in this moment, or being closed",
                                       call, kind));
    case EPERM:
      return refuse(error,
                    fmt::format("{}: this process was forked off the one that has the {}", call, kind));
    default:
      return refuse(error, fmt::format("{}: expected the handle of {} {}, found one that is null, was given "
                                       "back or is of another kind",
                                       call, *kind == 'i' ? "an" : "a", kind));
  }
}

int64_t put_text(std::string_view text, char* into, size_t size) {
  if (into != nullptr && size > 0) {
    size_t n = std::min(text.size(), size - 1);
    std::memcpy(into, text.data(), n);
    into[n] = '\0';
  }
  return static_cast<int64_t>(text.size());
}

}  // namespace reprise::capi
