#include "base/error.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace reprise {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return "invalid argument";
    case Code::kNotFound:
      return "not found";
    case Code::kAlreadyExists:
      return "already exists";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kUnsupported:
      return "unsupported";
    case Code::kIo:
      return "input/output error";
    case Code::kNoSpace:
      return "no space";
    case Code::kBusy:
      return "busy";
    case Code::kWrongVolume:
      return "wrong volume";
    case Code::kUnreachable:
      return "unreachable";
    case Code::kTimeout:
      return "timeout";
    case Code::kGap:
      return "gap";
    case Code::kDivergence:
      return "divergence";
    case Code::kDetached:
      return "detached";
    case Code::kReadOnly:
      return "read-only";
    case Code::kPermission:
      return "permission denied";
    case Code::kUnauthorised:
      return "unauthorised";
    case Code::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

Error Error::from_errno(int sys_errno, std::string_view what) {
  Code code = Code::kIo;
  switch (sys_errno) {
    case ENOENT:
      code = Code::kNotFound;
      break;
    case EEXIST:
      code = Code::kAlreadyExists;
      break;
    case ENOSPC:
    case EDQUOT:
      code = Code::kNoSpace;
      break;
    case EROFS:
      code = Code::kReadOnly;
      break;
    case EACCES:
    case EPERM:
      code = Code::kPermission;
      break;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
      code = Code::kUnreachable;
      break;
    case ETIMEDOUT:
      code = Code::kTimeout;
      break;
    default:
      break;
  }
  char buffer[128];
  return Error(code, fmt::format("{}: {}", what, strerror_r(sys_errno, buffer, sizeof buffer)), sys_errno);
}

Error Error::with_context(std::string_view context) const {
  return Error(code_, fmt::format("{}: {}", context, message_), sys_errno_);
}

}  // namespace reprise
