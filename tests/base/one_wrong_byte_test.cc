#include "base/one_wrong_byte.h"

#include <gtest/gtest.h>

#include <random>

#include "base/hash.h"

namespace reprise {
namespace {

Bytes random_bytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

// Lengths about which the hash is made in different ways; the byte in each place that matters.
const std::vector<size_t> kSizes = {1,    2,    16,   17,   128,  129,  240,  241,  255,  256,  257,  300,
                                    1023, 1024, 1025, 1026, 1087, 1088, 1089, 2047, 2048, 2049, 2113, 5000};

TEST(OneWrongByte, IsFoundWhereverItIs) {
  for (size_t size : kSizes) {
    const Bytes right = random_bytes(size, size);
    for (size_t at = 0; at < size; at += size < 400 ? 1 : 1 + at % 13) {
      Bytes bytes = right;
      bytes[at] ^= std::byte{0x10};
      auto found = correct_hashed_byte(bytes, hash64(right), false);
      ASSERT_TRUE(found) << size << " " << at;
      EXPECT_EQ(*found, at) << size;
      EXPECT_EQ(bytes, right) << size << " " << at;
    }
  }
}

TEST(OneWrongByte, IsFoundWhateverItIs) {
  for (size_t size : {200, 1500}) {
    const Bytes right = random_bytes(size, 7);
    for (size_t at : {size_t{0}, size / 3, size - 70, size - 1}) {
      for (unsigned n = 1; n < 256; n += 3) {
        Bytes bytes = right;
        bytes[at] ^= static_cast<std::byte>(n);
        EXPECT_EQ(correct_hashed_byte(bytes, hash64(right), true), at) << size << " " << n;
        EXPECT_EQ(bytes, right);
      }
    }
  }
}

TEST(OneWrongByte, TwoAreNotAndNothingIsChanged) {
  for (size_t size : kSizes) {
    if (size < 2) continue;
    const Bytes right = random_bytes(size, size);
    Bytes wrong = right;
    wrong[0] ^= std::byte{1};
    wrong[size - 1] ^= std::byte{1};
    Bytes bytes = wrong;
    EXPECT_FALSE(correct_hashed_byte(bytes, hash64(right), size < 300));
    EXPECT_EQ(bytes, wrong);
  }
}

TEST(OneWrongByte, AValueOfSeveralBitsOnlyIfItIsAskedFor) {
  const Bytes right = random_bytes(3000, 3);
  Bytes bytes = right;
  bytes[100] ^= std::byte{0x11};
  uint64_t last = 0, all = 0;
  auto progress = [&](uint64_t done, uint64_t of) {
    EXPECT_GE(done, last);
    EXPECT_LT(done, of);
    last = done;
    all = of;
  };
  EXPECT_FALSE(correct_hashed_byte(bytes, hash64(right), false, progress));
  EXPECT_EQ(all, 3000u);
  EXPECT_GE(last, 2000u);
  last = 0;
  EXPECT_EQ(correct_hashed_byte(bytes, hash64(right), true, progress), 100u);
  EXPECT_EQ(all, 6000u);
  EXPECT_EQ(bytes, right);
}

}  // namespace
}  // namespace reprise
