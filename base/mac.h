// Mac: a keyed hash, which only who knows the key can make: HMAC-SHA-256 (RFC 2104, FIPS 180-4), OpenSSL's.
// Values; any thread.
#pragma once

#include <array>

#include "base/bytes.h"

namespace reprise {

using Mac = std::array<std::byte, 32>;

// A key of any length; how hard it is to guess is the caller's affair.
Mac hmac_sha256(ByteView key, ByteView message);
// In a time that does not depend on where they differ.
bool same_secret(ByteView a, ByteView b);

}  // namespace reprise
