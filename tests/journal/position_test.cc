#include "journal/position.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace reprise::journal {
namespace {

Vector draw_vector() {
  Vector vector;
  for (int i = *rc::gen::inRange(0, 6); i > 0; --i) {
    OriginId origin{.hi = *rc::gen::inRange<uint64_t>(0, 4), .lo = *rc::gen::inRange<uint64_t>(1, 4)};
    vector.set(origin, *rc::gen::nonZero<uint64_t>());
  }
  return vector;
}

RC_GTEST_PROP(Vector, DecodeGivesWhatWasEncoded, ()) {
  Vector vector = draw_vector();
  auto decoded = Vector::decode(vector.encode());
  RC_ASSERT(decoded.has_value());
  RC_ASSERT(*decoded == vector);
}

RC_GTEST_PROP(Vector, MergeCoversBothAndDifferenceLeadsThere, ()) {
  Vector a = draw_vector(), b = draw_vector(), merged = a;
  merged.merge(b);
  RC_ASSERT(merged.covers(a) && merged.covers(b));
  RC_ASSERT(a.covers(b) == (merged == a));
  Vector again = a;
  for (const auto& [origin, lsn] : merged.difference_from(a)) {
    RC_ASSERT(a.get(origin) < lsn);
    again.set(origin, lsn);
  }
  RC_ASSERT(again == merged);
}

TEST(Vector, NeverHoldsAnLsnOfZero) {
  Vector vector;
  vector.set({1, 1}, 0);
  EXPECT_TRUE(vector.empty());
  vector.set({1, 1}, 4);
  vector.set({1, 1}, 0);
  EXPECT_TRUE(vector.empty());
}

TEST(Vector, DecodeRefusesDisorderAndEveryCut) {
  Vector vector;
  vector.set({1, 1}, 3);
  vector.set({2, 1}, 4);
  Bytes good = vector.encode();
  for (size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(Vector::decode(ByteView(good).first(n))) << n;
  Bytes swapped = good;
  std::swap_ranges(swapped.begin() + 4, swapped.begin() + 28, swapped.begin() + 28);
  EXPECT_EQ(Vector::decode(swapped).error().code(), Code::kCorrupt);
  Bytes huge = good;
  store_value(huge.data(), UINT32_MAX);
  EXPECT_EQ(Vector::decode(huge).error().code(), Code::kCorrupt);
}

RC_GTEST_PROP(Position, ParseGivesWhatTheTokenSays, ()) {
  Position position{draw_vector(),
                    {.lo = *rc::gen::arbitrary<uint64_t>(), .hi = *rc::gen::arbitrary<uint64_t>()}};
  std::string token = position.to_token();
  RC_ASSERT(token.starts_with("r0."));
  RC_ASSERT(token.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") ==
            std::string::npos);
  auto parsed = Position::parse_token(token);
  RC_ASSERT(parsed.has_value());
  RC_ASSERT(*parsed == position);
}

TEST(Position, EveryMistypedOrMissingCharacterIsRefused) {
  Position position{{}, {.lo = 11, .hi = 12}};
  position.vector.set({.hi = 3, .lo = 4}, 500);
  std::string token = position.to_token();
  for (size_t i = 0; i < token.size(); ++i) {
    for (char c : {'A', 'b', '7', '-', '.', ' '}) {
      std::string typo = token;
      if (typo[i] == c) continue;
      typo[i] = c;
      auto parsed = Position::parse_token(typo);
      ASSERT_FALSE(parsed) << typo;
      EXPECT_EQ(parsed.error().code(), Code::kInvalidArgument);
    }
    EXPECT_FALSE(Position::parse_token(token.substr(0, i)));
    EXPECT_FALSE(Position::parse_token(token.substr(0, i) + token.substr(i + 1)));
  }
  EXPECT_FALSE(Position::parse_token(token + "A"));
}

}  // namespace
}  // namespace reprise::journal
