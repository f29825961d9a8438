#include "store/pack.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "base/hash.h"
#include "store/pack_format.h"
#include "temp_directory.h"

namespace reprise::store {
namespace {

const VolumeId kVolume{1, 2};

Bytes text_blob(std::string_view text) {
  ByteView bytes = as_bytes(text);
  return {bytes.begin(), bytes.end()};
}
Bytes random_blob(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes out(size);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}
Bytes compressible_blob(size_t size, uint64_t seed) {
  Bytes out(size);
  for (size_t i = 0; i < size; i++) out[i] = static_cast<std::byte>((i / 64 + seed) % 7);
  if (size >= 8) store_value(out.data(), seed);
  return out;
}

class PackTest : public testing::Test {
 protected:
  void SetUp() override { reopen(); }
  void reopen(const PackOptions& options = {}) {
    blobs_.reset();
    auto packs = open_host_directory(directory_ / "packs", true);
    ASSERT_TRUE(packs) << packs.error().message();
    blobs_ = open_packs(std::move(*packs), kVolume, *catalogue_, options);
  }
  BlobId put(const Bytes& bytes) {
    auto id = blobs_->put(bytes);
    EXPECT_TRUE(id) << id.error().message();
    return id.value_or(BlobId{});
  }
  void flip(const std::string& pack, uint64_t offset) {
    std::fstream file(directory_ / "packs/" + pack, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    char byte = static_cast<char>(file.get());
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(static_cast<char>(byte ^ 1));
    ASSERT_TRUE(file.good());
  }
  size_t pack_count() {
    auto entries = std::filesystem::directory_iterator(directory_ / "packs");
    return static_cast<size_t>(std::distance(begin(entries), end(entries)));
  }

  TempDirectory directory_;
  std::unique_ptr<Catalogue> catalogue_ = catalogue_in_memory();
  std::unique_ptr<BlobStore> blobs_;
};

TEST_F(PackTest, ABlobWhoseHashIsAnothersIsRefusedAndNeverTakenForIt) {
  PackOptions options;
  options.hash = [](ByteView bytes) { return BlobId{.lo = bytes.size(), .hi = 7}; };
  reopen(options);
  BlobId first = put(text_blob("first"));
  BlobId other = put(text_blob("another"));
  EXPECT_NE(first, other);
  // Pending, then synced, then in the pack of a writer that has gone.
  for (int round = 0; round < 3; ++round) {
    uint64_t stored = blobs_->stored_bytes();
    auto collides = blobs_->put(text_blob("tsrif"));
    ASSERT_FALSE(collides) << round;
    EXPECT_EQ(collides.error().code(), Code::kCorrupt);
    EXPECT_THAT(collides.error().message(), testing::HasSubstr("two different blobs of 5 and 5 bytes"));
    EXPECT_EQ(put(text_blob("first")), first) << "it is stored once, and goes on being";
    EXPECT_EQ(blobs_->stored_bytes(), stored);
    EXPECT_EQ(as_text(*blobs_->get(first)), "first");
    if (round == 0) {
      ASSERT_TRUE(blobs_->sync());
    } else if (round == 1) {
      reopen(options);
    }
  }
}

TEST_F(PackTest, GivesBackWhatWasPutBeforeAndAfterSyncAndReopening) {
  std::vector<Bytes> all = {{},
                            text_blob("x"),
                            random_blob(5000, 1),
                            compressible_blob(5000, 2),
                            random_blob(3 << 20, 3),
                            compressible_blob(kBlobLimit, 4)};
  std::vector<BlobId> ids;
  for (const Bytes& blob : all) ids.push_back(put(blob));
  auto check = [&] {
    for (size_t i = 0; i < all.size(); i++) {
      EXPECT_EQ(ids[i], hash128(all[i]));
      auto got = blobs_->get(ids[i]);
      ASSERT_TRUE(got) << i << ": " << got.error().message();
      EXPECT_TRUE(*got == all[i]) << i;
    }
  };
  check();
  ASSERT_TRUE(blobs_->sync());
  check();
  reopen();
  check();
}

TEST_F(PackTest, StoresEqualBlobsOnce) {
  Bytes blob = random_blob(10'000, 1);
  put(blob);
  uint64_t once = blobs_->stored_bytes();
  put(blob);
  EXPECT_EQ(blobs_->stored_bytes(), once);
  ASSERT_TRUE(blobs_->sync());
  put(blob);
  EXPECT_EQ(blobs_->stored_bytes(), once);
  reopen();
  put(blob);
  EXPECT_EQ(blobs_->stored_bytes(), 0u);
  ASSERT_TRUE(blobs_->sync());
  EXPECT_EQ(pack_count(), 1u);  // a writer that adds nothing makes no pack
}

TEST_F(PackTest, CompressesWhatCompressesAndNothingElse) {
  put(compressible_blob(60'000, 1));
  EXPECT_LT(blobs_->stored_bytes(), 6'000u);
  uint64_t before = blobs_->stored_bytes();
  put(random_blob(60'000, 1));
  EXPECT_EQ(blobs_->stored_bytes() - before, 60'000 + kBlobHeaderBytes);
}

TEST_F(PackTest, PartsAreOneBlob) {
  Bytes blob = random_blob(9000, 1);
  ByteView whole = blob;
  ByteView parts[] = {whole.first(10), whole.subspan(10, 0), whole.subspan(10, 4096), whole.subspan(4106)};
  auto id = blobs_->put_parts(parts, Refers::kMaybe);
  ASSERT_TRUE(id);
  EXPECT_EQ(*id, hash128(blob));
  EXPECT_EQ(blobs_->get(*id), blob);
}

TEST_F(PackTest, AnUnknownBlobIsNotFound) {
  auto got = blobs_->get({1, 2});
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code(), Code::kNotFound);
}

TEST_F(PackTest, ABlobBeyondTheLimitIsRefused) {
  EXPECT_EQ(blobs_->put(Bytes(kBlobLimit + 1)).error().code(), Code::kInvalidArgument);
}

// Every byte of the middle one of three blobs flipped: that one is reported, the others are read. (A few bits
// of a zstd frame mean nothing; with them flipped the blob is still the right one.)
TEST_F(PackTest, DamageIsReportedAndStaysWhereItIs) {
  Bytes before = random_blob(100, 1), after = compressible_blob(3000, 3);
  for (const Bytes& middle : {random_blob(50, 2), compressible_blob(2000, 2)}) {
    SetUp();
    std::vector<BlobId> ids = {put(before), put(middle), put(after)};
    ASSERT_TRUE(blobs_->sync());
    BlobPlace place = catalogue_->blob(ids[1])->value();
    std::string pack = fmt::format("{:08}.pack", place.pack);
    uint64_t harmless = 0;
    for (uint64_t at = place.offset; at < place.offset + kBlobHeaderBytes + place.stored_bytes; at++) {
      flip(pack, at);
      auto got = blobs_->get(ids[1]);
      if (got) {
        EXPECT_EQ(*got, middle) << "byte " << at - place.offset;
        harmless++;
      } else {
        EXPECT_EQ(got.error().code(), Code::kCorrupt);
        EXPECT_THAT(got.error().message(), testing::HasSubstr(pack));
      }
      EXPECT_EQ(blobs_->get(ids[0]), before);
      EXPECT_EQ(blobs_->get(ids[2]), after);
      flip(pack, at);
    }
    EXPECT_LT(harmless, 4u);
    EXPECT_EQ(blobs_->get(ids[1]), middle);
  }
}

TEST_F(PackTest, APackCutShortIsReported) {
  BlobId id = put(random_blob(1000, 1));
  ASSERT_TRUE(blobs_->sync());
  std::filesystem::resize_file(directory_ / "packs/00000001.pack", 500);
  auto got = blobs_->get(id);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code(), Code::kCorrupt);
}

TEST_F(PackTest, AHashThatMatchesOtherBytesIsNeverTakenForThem) {
  BlobId first = put(text_blob("first"));
  ASSERT_TRUE(blobs_->sync());
  // As if the hash of "second" were that of "first".
  Bytes second = text_blob("second");
  ASSERT_TRUE(catalogue_->put_blobs({{hash128(second), catalogue_->blob(first)->value()}}));
  auto id = blobs_->put(second);
  ASSERT_FALSE(id);
  EXPECT_EQ(id.error().code(), Code::kCorrupt);
}

TEST_F(PackTest, APackThatIsFullIsFollowedByAnother) {
  reopen({.pack_bytes = 10'000, .buffer_bytes = 1000});
  std::vector<BlobId> ids;
  for (uint64_t i = 0; i < 20; i++) ids.push_back(put(random_blob(3000, i)));
  ASSERT_TRUE(blobs_->sync());
  EXPECT_EQ(pack_count(), 5u);
  for (uint64_t i = 0; i < 20; i++) EXPECT_EQ(blobs_->get(ids[i]), random_blob(3000, i));
}

TEST_F(PackTest, TwoWritersHavePacksOfTheirOwn) {
  auto other = open_packs(*open_host_directory(directory_ / "packs"), kVolume, *catalogue_);
  BlobId a = put(random_blob(100, 1));
  auto b = other->put(random_blob(100, 2));
  ASSERT_TRUE(b);
  ASSERT_TRUE(blobs_->sync());
  ASSERT_TRUE(other->sync());
  EXPECT_EQ(pack_count(), 2u);
  EXPECT_EQ(other->get(a), random_blob(100, 1));
  EXPECT_EQ(blobs_->get(*b), random_blob(100, 2));
}

TEST_F(PackTest, WhatWasNotSyncedDoesNotStandInTheWay) {
  reopen({.buffer_bytes = 1});
  BlobId kept = put(random_blob(1000, 1));
  ASSERT_TRUE(blobs_->sync());
  BlobId lost = put(random_blob(1000, 2));
  reopen();  // without sync: the index does not have it
  std::filesystem::resize_file(directory_ / "packs/00000001.pack",
                               std::filesystem::file_size(directory_ / "packs/00000001.pack") - 10);
  EXPECT_EQ(blobs_->get(lost).error().code(), Code::kNotFound);
  EXPECT_EQ(put(random_blob(1000, 2)), lost);
  ASSERT_TRUE(blobs_->sync());
  EXPECT_EQ(blobs_->get(lost), random_blob(1000, 2));
  EXPECT_EQ(blobs_->get(kept), random_blob(1000, 1));
}

// --- a disk that fails

struct Faults {
  int writes_until_full = -1;  // -1: never
  bool sync_fails = false;
};

class FaultyFile final : public File {
 public:
  FaultyFile(std::unique_ptr<File> file, Faults& faults) : file_(std::move(file)), faults_(faults) {}
  Result<size_t> pread(ByteSpan into, uint64_t offset) const override { return file_->pread(into, offset); }
  Status pwrite(ByteView bytes, uint64_t offset) override {
    if (faults_.writes_until_full == 0)
      return std::unexpected(Error::from_errno(ENOSPC, path() + ": cannot write"));
    if (faults_.writes_until_full > 0) faults_.writes_until_full--;
    return file_->pwrite(bytes, offset);
  }
  Result<uint64_t> size() const override { return file_->size(); }
  Status resize(uint64_t bytes) override { return file_->resize(bytes); }
  Status sync_data() override {
    if (faults_.sync_fails) return std::unexpected(Error::from_errno(EIO, path() + ": cannot sync"));
    return file_->sync_data();
  }
  const std::string& path() const override { return file_->path(); }

 private:
  std::unique_ptr<File> file_;
  Faults& faults_;
};

class FaultyDirectory final : public Directory {
 public:
  FaultyDirectory(std::unique_ptr<Directory> directory, Faults& faults)
      : directory_(std::move(directory)), faults_(faults) {}
  Result<std::unique_ptr<File>> open(std::string_view name, OpenMode mode) override {
    return std::make_unique<FaultyFile>(TRY(directory_->open(name, mode)), faults_);
  }
  Result<std::unique_ptr<Directory>> open_directory(std::string_view name) override {
    return directory_->open_directory(name);
  }
  Status make_directory(std::string_view name) override { return directory_->make_directory(name); }
  Result<bool> exists(std::string_view name) override { return directory_->exists(name); }
  Status rename(std::string_view from, std::string_view to) override { return directory_->rename(from, to); }
  Status unlink(std::string_view name) override { return directory_->unlink(name); }
  Result<std::vector<std::string>> list() override { return directory_->list(); }
  Status sync() override { return directory_->sync(); }
  const std::string& path() const override { return directory_->path(); }

 private:
  std::unique_ptr<Directory> directory_;
  Faults& faults_;
};

TEST_F(PackTest, AFullDiskIsSaidAndNothingSyncedIsLost) {
  Faults faults;
  blobs_ = open_packs(std::make_unique<FaultyDirectory>(*open_host_directory(directory_ / "packs"), faults),
                      kVolume, *catalogue_, {.buffer_bytes = 1});
  BlobId kept = put(random_blob(1000, 1));
  ASSERT_TRUE(blobs_->sync());
  faults.writes_until_full = 0;
  EXPECT_EQ(blobs_->put(random_blob(1000, 2)).error().code(), Code::kNoSpace);
  EXPECT_EQ(blobs_->sync().error().code(), Code::kNoSpace);
  faults.writes_until_full = -1;
  EXPECT_EQ(blobs_->get(kept), random_blob(1000, 1));
  // What waited for space is written once there is some, and so is what comes then.
  BlobId second = put(random_blob(1000, 2)), third = put(random_blob(1000, 3));
  ASSERT_TRUE(blobs_->sync());
  reopen();
  EXPECT_EQ(blobs_->get(kept), random_blob(1000, 1));
  EXPECT_EQ(blobs_->get(second), random_blob(1000, 2));
  EXPECT_EQ(blobs_->get(third), random_blob(1000, 3));
}

TEST_F(PackTest, AFailedSyncIndexesNothing) {
  Faults faults{.sync_fails = true};
  blobs_ = open_packs(std::make_unique<FaultyDirectory>(*open_host_directory(directory_ / "packs"), faults),
                      kVolume, *catalogue_);
  BlobId id = put(random_blob(1000, 1));
  EXPECT_EQ(blobs_->sync().error().code(), Code::kIo);
  faults.sync_fails = false;
  EXPECT_EQ(blobs_->sync().error().code(), Code::kIo);
  EXPECT_FALSE(catalogue_->blob(id)->has_value());
}

TEST(BlobHeader, LiesAboutSizesAreRefused) {
  BlobHeader good{.codec = Codec::kZstd, .id = {1, 2}, .raw_bytes = 100, .stored_bytes = 50};
  auto accepted = [](const BlobHeader& header) {
    return decode_blob_header(encode_blob_header(header)).has_value();
  };
  EXPECT_TRUE(accepted(good));
  BlobHeader huge = good, longer = good, codec = good;
  huge.raw_bytes = kBlobLimit + 1;
  longer.stored_bytes = 101;
  codec.codec = static_cast<Codec>(2);
  EXPECT_FALSE(accepted(huge));
  EXPECT_FALSE(accepted(longer));
  EXPECT_FALSE(accepted(codec));
}

TEST(MemoryBlobs, BehaveAsPacksDo) {
  auto blobs = blobs_in_memory();
  Bytes blob = random_blob(1000, 1);
  EXPECT_EQ(blobs->put(blob), hash128(blob));
  EXPECT_EQ(blobs->put(blob), hash128(blob));
  EXPECT_EQ(blobs->stored_bytes(), 1000u);
  EXPECT_EQ(blobs->get(hash128(blob)), blob);
  EXPECT_EQ(blobs->get({1, 2}).error().code(), Code::kNotFound);
  EXPECT_EQ(blobs->put(Bytes(kBlobLimit + 1)).error().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace reprise::store
