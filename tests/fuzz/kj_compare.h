// Included before everything else where clang compiles: the headers of Cap'n Proto 0.9.2 compare a C string
// with a StringPtr before they have declared how, which clang refuses in C++20 and later.
#pragma once

#ifdef __cplusplus
namespace kj {
class StringPtr;
inline bool operator==(const char* a, const StringPtr& b);
}  // namespace kj
#endif
