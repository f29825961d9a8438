// What a call of the C interface returns when something did not work: a negative errno, and the words that
// reprise_last_error() has for it. Threads: the words are each thread's own.
#pragma once

#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

#include "base/error.h"
#include "fs/errno.h"

namespace reprise::capi {

const char* last_error();
// Keeps the words; returns -error.
int refuse(int error, std::string words);
int refuse(const Error& error);
// `call` is what the host called, `path` what of, if anything.
int refuse(fs::Errno error, const char* call, std::string_view path = {});
// Of a handle: `call` got it, `kind` is what it should have been.
int refuse_handle(int error, const char* call, const char* kind);

// Runs a call. Memory that there is not becomes -ENOMEM, a thread that the system refuses its errno; nothing
// else should be thrown by what is called.
template <class Call>
auto guarded(const char* name, const Call& call) noexcept -> decltype(call()) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return refuse(ENOMEM, std::string(name) + ": no memory");
  } catch (const std::system_error& error) {
    return refuse(error.code().value(), std::string(name) + ": " + error.what());
  } catch (const std::exception& error) {  // of a library; it must not end the host
    return refuse(EIO, std::string(name) + ": " + error.what());
  }
}

// As snprintf: the length of all, of which at most `size` bytes are written, a 0 at their end.
int64_t put_text(std::string_view text, char* into, size_t size);

}  // namespace reprise::capi
