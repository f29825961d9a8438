// The keyed hash is the one that everybody else computes.
#include "base/mac.h"

#include <gtest/gtest.h>

namespace reprise {
namespace {

TEST(Mac, IsHmacSha256) {
  // RFC 4231, test cases 2 and 6.
  EXPECT_EQ(to_hex(hmac_sha256(as_bytes("Jefe"), as_bytes("what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  Bytes long_key(131, std::byte{0xaa});
  EXPECT_EQ(to_hex(hmac_sha256(long_key, as_bytes("Test Using Larger Than Block-Size Key - Hash Key First"))),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Mac, SecretsAreComparedWhole) {
  EXPECT_TRUE(same_secret(as_bytes("secret"), as_bytes("secret")));
  EXPECT_FALSE(same_secret(as_bytes("secret"), as_bytes("secres")));
  EXPECT_FALSE(same_secret(as_bytes("secret"), as_bytes("secre")));
}

}  // namespace
}  // namespace reprise
