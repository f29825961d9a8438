// How XXH3-64 hashes more than 240 bytes is used here; its description is in
// https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md. Eight sums ("lanes") of 64 bits are kept. A
// stripe of 64 bytes adds to each lane what its own eight bytes say, and these eight bytes to its neighbour.
// After each 16 stripes, a block, each lane is scrambled by itself. So one byte that is another changes two
// lanes, a pair, and what the later blocks add to these stays what it was.
#define XXH_INLINE_ALL  // its constants, and how lanes become one number; not with base/hash.h
#include "base/one_wrong_byte.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace reprise {
namespace {

constexpr size_t kLanes = 8, kStripe = 64, kBlock = 1024, kShortest = 241;
using Lanes = std::array<uint64_t, kLanes>;

const xxh_u8* secret_at(size_t at) {
  return XXH3_kSecret + at;
}
uint64_t secret_word(size_t at) {
  return load_value<uint64_t>(reinterpret_cast<const std::byte*>(secret_at(at)));
}
constexpr size_t kScrambleSecret = XXH_SECRET_DEFAULT_SIZE - kStripe;
constexpr size_t kLastSecret = kScrambleSecret - XXH_SECRET_LASTACC_START;
constexpr size_t kMergeSecret = XXH_SECRET_MERGEACCS_START;

// What eight bytes add to their own lane.
uint64_t product(uint64_t word, uint64_t secret) {
  const uint64_t key = word ^ secret;
  return (key & 0xffffffff) * (key >> 32);
}
uint64_t scramble(uint64_t lane, uint64_t secret) {
  return ((lane ^ (lane >> 47)) ^ secret) * XXH_PRIME32_1;
}

void add_stripe(Lanes& lanes, const std::byte* stripe, size_t secret) {
  for (size_t i = 0; i < kLanes; ++i) {
    const auto word = load_value<uint64_t>(stripe + 8 * i);
    lanes[i ^ 1] += word;
    lanes[i] += product(word, secret_word(secret + 8 * i));
  }
}

class Search {
 public:
  Search(ByteSpan bytes, uint64_t checksum, const std::function<void(uint64_t, uint64_t)>& progress)
      : bytes_(bytes), checksum_(checksum), progress_(progress), blocks_((bytes.size() - 1) / kBlock) {
    for (size_t i = 0; i < kLanes; ++i) scramble_secret_[i] = secret_word(kScrambleSecret + 8 * i);
    Lanes lanes = XXH3_INIT_ACC;
    for (size_t block = 0; block <= blocks_; ++block) {
      before_.push_back(lanes);
      Lanes after = lanes;
      add_block(after, block);
      Lanes added;
      for (size_t i = 0; i < kLanes; ++i) added[i] = after[i] - lanes[i];
      added_.push_back(added);
      lanes = after;
      if (block < blocks_) scramble_all(lanes);
    }
    final_ = lanes;
    // The last bytes may count twice, once in the stripe that is the last whatever the length is.
    tail_ = std::min(blocks_ * kBlock, bytes.size() - kStripe);
  }

  std::optional<size_t> run(bool every_value) {
    for (unsigned n = 1; n < 256; n *= 2) flips_.push_back(static_cast<std::byte>(n));
    if (auto found = pass(0, every_value ? 2 : 1)) return found;
    if (!every_value) return std::nullopt;
    flips_.clear();
    for (unsigned n = 1; n < 256; ++n)
      if ((n & (n - 1)) != 0) flips_.push_back(static_cast<std::byte>(n));
    return pass(1, 2);
  }

 private:
  std::optional<size_t> pass(size_t pass, size_t passes) {
    for (size_t at = 0; at < bytes_.size(); ++at) {
      if (progress_ && at % kBlock == 0) progress_(pass * bytes_.size() + at, passes * bytes_.size());
      if (at < tail_ ? try_early(at) : try_late(at)) return at;
    }
    return std::nullopt;
  }

  void add_block(Lanes& lanes, size_t block) const {
    const std::byte* begin = bytes_.data() + block * kBlock;
    const size_t stripes =
        block < blocks_ ? kBlock / kStripe : (bytes_.size() - 1 - block * kBlock) / kStripe;
    for (size_t n = 0; n < stripes; ++n) add_stripe(lanes, begin + n * kStripe, 8 * n);
    if (block == blocks_) add_stripe(lanes, bytes_.data() + bytes_.size() - kStripe, kLastSecret);
  }
  void scramble_all(Lanes& lanes) const {
    for (size_t i = 0; i < kLanes; ++i) lanes[i] = scramble(lanes[i], scramble_secret_[i]);
  }
  uint64_t merge(const Lanes& lanes) const {
    return XXH3_mergeAccs(lanes.data(), secret_at(kMergeSecret), bytes_.size() * XXH_PRIME64_1);
  }

  bool is_right(const Lanes& lanes, size_t at, std::byte flip) {
    if (merge(lanes) != checksum_) return false;
    bytes_[at] ^= flip;
    if (XXH3_64bits(bytes_.data(), bytes_.size()) == checksum_) return true;
    bytes_[at] ^= flip;
    return false;
  }

  // A byte that counts once, in a whole block: all flips of it, side by side through the blocks behind.
  bool try_early(size_t at) {
    const size_t own = at % kStripe / 8, neighbour = own ^ 1, first = at / kBlock;
    const auto word = load_value<uint64_t>(bytes_.data() + at / 8 * 8);
    const uint64_t secret = secret_word(at % kBlock / kStripe * 8 + 8 * own);
    const Lanes& begin = before_[first];
    own_.resize(flips_.size());
    neighbour_.resize(flips_.size());
    for (size_t n = 0; n < flips_.size(); ++n) {
      const uint64_t other = word ^ (uint64_t{std::to_integer<uint8_t>(flips_[n])} << at % 8 * 8);
      own_[n] = begin[own] + added_[first][own] + product(other, secret) - product(word, secret);
      neighbour_[n] = begin[neighbour] + added_[first][neighbour] + other - word;
    }
    for (size_t block = first + 1; block <= blocks_; ++block) {
      pass_block(own_, scramble_secret_[own], added_[block][own]);
      pass_block(neighbour_, scramble_secret_[neighbour], added_[block][neighbour]);
    }
    Lanes lanes = final_;
    for (size_t n = 0; n < flips_.size(); ++n) {
      lanes[own] = own_[n];
      lanes[neighbour] = neighbour_[n];
      if (is_right(lanes, at, flips_[n])) return true;
    }
    return false;
  }
  static void pass_block(std::vector<uint64_t>& lane, uint64_t secret, uint64_t added) {
    for (uint64_t& value : lane) value = scramble(value, secret) + added;
  }

  // One of the last: hashed again from its block on.
  bool try_late(size_t at) {
    for (std::byte flip : flips_) {
      bytes_[at] ^= flip;
      Lanes lanes = before_[at / kBlock];
      for (size_t block = at / kBlock; block <= blocks_; ++block) {
        add_block(lanes, block);
        if (block < blocks_) scramble_all(lanes);
      }
      bytes_[at] ^= flip;
      if (is_right(lanes, at, flip)) return true;
    }
    return false;
  }

  const ByteSpan bytes_;
  const uint64_t checksum_;
  const std::function<void(uint64_t, uint64_t)>& progress_;
  const size_t blocks_;  // that are scrambled; one more is not
  size_t tail_ = 0;
  Lanes scramble_secret_, final_;
  std::vector<Lanes> before_, added_;  // of each block: the lanes before it, and what it adds
  std::vector<std::byte> flips_;
  std::vector<uint64_t> own_, neighbour_;  // lanes, of each flip
};

}  // namespace

std::optional<size_t> correct_hashed_byte(ByteSpan bytes, uint64_t checksum, bool every_value,
                                          const std::function<void(uint64_t, uint64_t)>& progress) {
  if (bytes.size() >= kShortest) return Search(bytes, checksum, progress).run(every_value);
  return correct_byte(bytes, every_value,
                      [&](ByteView all) { return XXH3_64bits(all.data(), all.size()) == checksum; });
}

}  // namespace reprise
