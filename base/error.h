// Error and Result: how everything outside fs/ says that something did not work. (fs/ answers with Errno.)
//
// A Code is something some caller branches on; the message is for a person: it names the file or peer, what
// was expected and what was found. Values only: an Error owns its text and may cross threads.
//
//   Result<Segment> open_segment(…);
//   auto segment = TRY(open_segment(…));   // returns the Error from the enclosing function
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace reprise {

enum class Code {
  kInvalidArgument,  // the caller asked for something that makes no sense
  kNotFound,         // the named thing does not exist
  kAlreadyExists,    // it does, and must not
  kCorrupt,          // bytes that cannot be what they claim to be
  kUnsupported,      // a version or feature this build does not know
  kIo,               // the disk or network failed; sys_errno says how
  kNoSpace,          // the disk is full
  kBusy,             // held by somebody else, who is named
  kWrongVolume,      // a peer or file of another volume
  kUnreachable,      // nobody answers there
  kTimeout,          // not within the time given
  kGap,              // the records needed have been trimmed
  kDivergence,       // equal vectors, different digests
  kDetached,         // the peer was cut off; the message says why
  kReadOnly,         // a follower, or an instance whose disk failed
  kPermission,       // the host refuses
  kUnauthorised,     // a peer, or the way to one, asks for a token: there is none, or it is another
  kCancelled,        // stopped on request
};

// The code's name in words, as messages and JSON show it: "not found", "corrupt", …
std::string_view code_name(Code code);

class [[nodiscard]] Error {
 public:
  Error(Code code, std::string message, int sys_errno = 0)
      : code_(code), sys_errno_(sys_errno), message_(std::move(message)) {}

  // An Error for a failed system call: chooses the code from sys_errno and appends its text to "what".
  static Error from_errno(int sys_errno, std::string_view what);

  Code code() const { return code_; }
  // The system's errno behind kIo, kNoSpace, kPermission and kNotFound; 0 if there is none.
  int sys_errno() const { return sys_errno_; }
  const std::string& message() const { return message_; }

  // The same error with context in front: "context: message".
  Error with_context(std::string_view context) const;

 private:
  Code code_;
  int sys_errno_;
  std::string message_;
};

template <class T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

inline std::unexpected<Error> fail(Code code, std::string message) {
  return std::unexpected(Error(code, std::move(message)));
}

}  // namespace reprise

// TRY(expression): the value of an expected, or return its error from the enclosing function. Works for every
// std::expected, so for Result, Status and fs::Outcome alike, and inside another TRY. Not inside a braced
// list behind members that own something: g++ 12 leaks those when the list is left half way.
#define TRY(...) REPRISE_TRY_AS(REPRISE_JOIN(try_result_, __COUNTER__), __VA_ARGS__)
#define REPRISE_TRY_AS(result, ...)                                           \
  ({                                                                          \
    auto&& result = (__VA_ARGS__);                                            \
    if (!result) [[unlikely]]                                                 \
      return std::unexpected(std::forward<decltype(result)>(result).error()); \
    *std::forward<decltype(result)>(result);                                  \
  })
#define REPRISE_JOIN(a, b) REPRISE_JOIN_EXPANDED(a, b)
#define REPRISE_JOIN_EXPANDED(a, b) a##b
