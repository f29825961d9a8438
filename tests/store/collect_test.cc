// Collections: what is needed stays, what is not goes, whoever writes meanwhile and wherever it stops.
#include "store/collect.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "base/hash.h"
#include "store/pack.h"
#include "temp_directory.h"
#include "tests/journal/crash_disk.h"

namespace reprise::store {
namespace {

using test::CrashDirectory;
using test::CrashDisk;
using test::DiskEvent;
using test::Fate;
using test::Files;
using test::Platters;

const VolumeId kVolume{1, 2};

Bytes random_blob(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes out(size);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}
BlobId id_of(uint64_t seed, size_t size = 1000) {
  return hash128(random_blob(size, seed));
}
Result<std::unique_ptr<FileLock>> own_freely(const std::string&) {
  return std::unique_ptr<FileLock>();
}

class CollectTest : public testing::Test {
 protected:
  std::unique_ptr<BlobStore> open(const PackOptions& options = {}) {
    return open_packs(std::move(*open_host_directory(directory_ / "packs", true)), kVolume, *catalogue_,
                      options);
  }
  static std::function<bool(BlobId)> all_of(std::set<BlobId> needed) {
    return [needed = std::move(needed)](BlobId id) { return needed.contains(id); };
  }
  static void put(BlobStore& blobs, uint64_t from, uint64_t to) {
    for (uint64_t seed = from; seed < to; ++seed) ASSERT_TRUE(blobs.put(random_blob(1000, seed)));
    ASSERT_TRUE(blobs.sync());
  }
  size_t pack_count() {
    auto entries = std::filesystem::directory_iterator(directory_ / "packs");
    return static_cast<size_t>(std::distance(begin(entries), end(entries)));
  }
  static Collected collect(BlobStore& blobs, const std::set<BlobId>& needed, double dead_share = 1.0 / 3) {
    auto collected = blobs.collect({}, all_of(needed), dead_share);
    EXPECT_TRUE(collected) << collected.error().message();
    return collected ? *collected : Collected{};
  }

  TempDirectory directory_;
  std::unique_ptr<Catalogue> catalogue_ = catalogue_in_memory();
};

TEST_F(CollectTest, DeadPacksGoMostlyDeadOnesAreCopiedOthersStay) {
  auto blobs = open({.pack_bytes = 10'000, .buffer_bytes = 100});
  put(*blobs, 0, 40);  // ten to a pack
  ASSERT_EQ(pack_count(), 4u);
  std::set<BlobId> needed;
  for (uint64_t seed = 0; seed < 9; ++seed) needed.insert(id_of(seed));    // of the first pack most
  for (uint64_t seed = 10; seed < 12; ++seed) needed.insert(id_of(seed));  // of the second two
  Collected collected = collect(*blobs, needed);
  EXPECT_EQ(collected.blobs_dropped, 29u);
  EXPECT_EQ(collected.packs_removed, 2u);
  EXPECT_EQ(collected.packs_rewritten, 1u);
  EXPECT_EQ(collected.packs_in_use, 0u) << "what this store wrote itself is collected, too";
  EXPECT_EQ(collected.bytes_copied, 2u * (1000 + kBlobHeaderBytes));
  EXPECT_GT(collected.bytes_before, 40'000u);
  EXPECT_LT(collected.bytes_after, 13'000u);
  EXPECT_EQ(pack_count(), 2u);
  for (bool again : {false, true}) {
    for (uint64_t seed = 0; seed < 40; ++seed) {
      auto got = blobs->get(id_of(seed));
      ASSERT_EQ(got.has_value(), needed.contains(id_of(seed))) << seed;
      if (got) {
        EXPECT_EQ(*got, random_blob(1000, seed));
      }
    }
    if (!again) blobs = open();
  }
  // What has gone is put anew.
  put(*blobs, 30, 40);
  EXPECT_EQ(blobs->get(id_of(35)), random_blob(1000, 35));
  Collected nothing = collect(*blobs, [&] {
    std::set<BlobId> more = needed;
    for (uint64_t seed = 30; seed < 40; ++seed) more.insert(id_of(seed));
    return more;
  }());
  EXPECT_EQ(nothing.blobs_dropped + nothing.packs_removed + nothing.packs_rewritten, 0u);
}

TEST_F(CollectTest, ManySmallPacksBecomeOne) {
  std::set<BlobId> needed;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    put(*open(), seed, seed + 1);
    needed.insert(id_of(seed));
  }
  ASSERT_EQ(pack_count(), 20u);
  auto blobs = open();
  collect(*blobs, needed);
  EXPECT_EQ(pack_count(), 1u);
  for (uint64_t seed = 0; seed < 20; ++seed) EXPECT_EQ(blobs->get(id_of(seed)), random_blob(1000, seed));
}

TEST_F(CollectTest, WhatACrashedWriterLeftGoes) {
  {
    auto blobs = open({.buffer_bytes = 1});
    ASSERT_TRUE(blobs->put(random_blob(1000, 1)));
  }
  ASSERT_EQ(pack_count(), 1u);
  auto blobs = open();
  EXPECT_EQ(collect(*blobs, {}).packs_removed, 1u);
  EXPECT_EQ(pack_count(), 0u);
}

TEST_F(CollectTest, APackThatIsBeingWrittenIsLeftAlone) {
  auto writer = open({.pack_bytes = 3000, .buffer_bytes = 1});
  put(*writer, 0, 2);
  // Behind what is synced, in this pack and the next: the catalogue does not know of it yet.
  for (uint64_t seed = 10; seed < 15; ++seed) ASSERT_TRUE(writer->put(random_blob(1000, seed)));
  ASSERT_EQ(pack_count(), 3u);
  auto collector = open();
  Collected collected = collect(*collector, {});
  EXPECT_EQ(collected.packs_in_use, 3u);
  EXPECT_EQ(collected.packs_removed, 0u);
  ASSERT_TRUE(writer->sync());  // it has not begun anything that rests on what there was
  for (uint64_t seed = 10; seed < 15; ++seed) EXPECT_EQ(collector->get(id_of(seed)), random_blob(1000, seed));
}

TEST_F(CollectTest, WhatRestsOnWhatWasSweptIsNotKept) {
  auto writer = open();
  put(*writer, 0, 3);
  auto sweeps = writer->begin();
  ASSERT_TRUE(sweeps);
  EXPECT_EQ(writer->keeps(id_of(0)), true);
  ASSERT_TRUE(writer->put(random_blob(1000, 0)));  // is there, so nothing is written
  ASSERT_TRUE(writer->put(random_blob(1000, 7)));
  auto collector = open();
  collect(*collector, {id_of(1)});
  EXPECT_EQ(writer->sync().error().code(), Code::kBusy);
  EXPECT_EQ(catalogue_->add_snapshot({.branch = "main"}, {}, *sweeps).error().code(), Code::kBusy);
  EXPECT_FALSE(catalogue_->blob(id_of(7))->has_value());
  writer->abandon();
  sweeps = writer->begin();
  EXPECT_EQ(writer->keeps(id_of(0)), false);
  EXPECT_EQ(writer->keeps(id_of(1)), true);
  put(*writer, 0, 1);
  EXPECT_EQ(writer->keeps(id_of(0)), true);
  EXPECT_TRUE(catalogue_->add_snapshot({.branch = "main"}, {}, *sweeps));
  EXPECT_EQ(collector->get(id_of(0)), random_blob(1000, 0));
}

TEST_F(CollectTest, ASnapshotThatCameMeanwhileStopsIt) {
  auto blobs = open();
  put(*blobs, 0, 2);
  auto id = catalogue_->add_snapshot({.branch = "main"});
  auto collected = blobs->collect({}, all_of({}), 0.3);
  ASSERT_FALSE(collected);
  EXPECT_EQ(collected.error().code(), Code::kBusy);
  EXPECT_TRUE(blobs->get(id_of(0)));
  EXPECT_TRUE(blobs->collect({*id}, all_of({}), 0.3));
  EXPECT_FALSE(blobs->get(id_of(0)));
}

TEST_F(CollectTest, AReaderFindsWhatWasMovedMeanwhile) {
  auto blobs = open(), reader = open();
  put(*blobs, 0, 10);
  EXPECT_TRUE(reader->get(id_of(5)));  // has the pack open now
  collect(*blobs, {id_of(5), id_of(6)});
  EXPECT_EQ(reader->get(id_of(5)), random_blob(1000, 5));
  EXPECT_EQ(reader->get(id_of(6)), random_blob(1000, 6));
  // The number of the pack that went is given to another.
  collect(*blobs, {id_of(6)}, 0.1);
  put(*blobs, 20, 22);
  EXPECT_EQ(reader->get(id_of(20)), random_blob(1000, 20));
  EXPECT_EQ(reader->get(id_of(5)).error().code(), Code::kNotFound);
}

TEST_F(CollectTest, ADamagedPackStaysAsItIsAndIsSaid) {
  auto blobs = open();
  put(*blobs, 0, 10);
  BlobPlace place = catalogue_->blob(id_of(1))->value();
  {
    auto packs = open_host_directory(directory_ / "packs");
    auto file = (*packs)->open("00000001.pack", OpenMode::kReadWrite);
    ASSERT_TRUE((*file)->pwrite(Bytes(1), place.offset + kBlobHeaderBytes + 5));
  }
  Collected collected = collect(*blobs, {id_of(1), id_of(2)});
  ASSERT_TRUE(collected.left);
  EXPECT_EQ(collected.left->code(), Code::kCorrupt);
  EXPECT_EQ(pack_count(), 1u);
  EXPECT_EQ(blobs->get(id_of(2)), random_blob(1000, 2));
}

TEST_F(CollectTest, WhatIsAbandonedGivesItsSpaceBack) {
  auto blobs = open({.pack_bytes = 5000, .buffer_bytes = 1});
  put(*blobs, 0, 2);
  auto size = [&] { return *blobs->bytes_on_disk(); };
  uint64_t before = size(), stored = blobs->stored_bytes();
  for (uint64_t seed = 10; seed < 30; ++seed) ASSERT_TRUE(blobs->put(random_blob(1000, seed)));
  EXPECT_GT(size(), before + 15'000);
  blobs->abandon();
  EXPECT_EQ(size(), before);
  EXPECT_EQ(pack_count(), 1u);
  EXPECT_EQ(blobs->stored_bytes(), stored);
  EXPECT_EQ(blobs->get(id_of(15)).error().code(), Code::kNotFound);
  EXPECT_EQ(blobs->keeps(id_of(15)), false);
  put(*blobs, 15, 16);
  EXPECT_EQ(blobs->get(id_of(15)), random_blob(1000, 15));
  EXPECT_EQ(blobs->get(id_of(1)), random_blob(1000, 1));
}

// --- a collection that is cut short anywhere

// A catalogue on a disk that is killed: it goes on where its last transaction ended.
class CrashCatalogue {
 public:
  // Blobs at a moment in the trace: transactions are durable when they return.
  void note(size_t events, Catalogue& catalogue) {
    std::map<BlobId, BlobPlace> now;
    ASSERT_TRUE(catalogue.for_each_blob([&](BlobId id, const BlobPlace& place) { now[id] = place; }));
    if (states_.empty() || states_.back().second != now) states_.emplace_back(events, now);
  }
  const std::map<BlobId, BlobPlace>& at(size_t events) const {
    size_t i = states_.size() - 1;
    while (i > 0 && states_[i].first > events) --i;
    return states_[i].second;
  }

 private:
  std::vector<std::pair<size_t, std::map<BlobId, BlobPlace>>> states_;
};

// Notes each transaction of the catalogue on a disk's trace.
class NotingDirectory final : public Directory {
 public:
  NotingDirectory(std::shared_ptr<CrashDisk> disk, std::function<void()> before_each)
      : directory_(disk), before_each_(std::move(before_each)) {}
  Result<std::unique_ptr<File>> open(std::string_view name, OpenMode mode) override {
    before_each_();
    return directory_.open(name, mode);
  }
  Result<std::unique_ptr<Directory>> open_directory(std::string_view name) override {
    return directory_.open_directory(name);
  }
  Status make_directory(std::string_view name) override { return directory_.make_directory(name); }
  Result<bool> exists(std::string_view name) override { return directory_.exists(name); }
  Status rename(std::string_view from, std::string_view to) override { return directory_.rename(from, to); }
  Status unlink(std::string_view name) override {
    before_each_();
    return directory_.unlink(name);
  }
  Result<std::vector<std::string>> list() override {
    before_each_();
    return directory_.list();
  }
  Status sync() override {
    before_each_();
    return directory_.sync();
  }
  const std::string& path() const override { return directory_.path(); }

 private:
  CrashDirectory directory_;
  std::function<void()> before_each_;
};

// After every event of the disk the power fails, and of what was not synced something is left: all, nothing,
// or any part, at random. The catalogue is what its last transaction made it, or the one before: then nothing
// that is needed may be missing, and the next collection leaves nothing else.
TEST_F(CollectTest, CutShortAnywhereItLosesNothingAndTheNextOneTakesTheRest) {
  auto disk = std::make_shared<CrashDisk>();
  PackOptions small{.pack_bytes = 3000, .buffer_bytes = 500, .own = own_freely};
  std::set<BlobId> needed;
  {
    auto blobs = open_packs(std::make_unique<CrashDirectory>(disk), kVolume, *catalogue_, small);
    for (uint64_t seed = 0; seed < 80; ++seed) {
      ASSERT_TRUE(blobs->put(random_blob(200 + seed * 17, seed)));
      if (seed % 4 == 0 || (seed > 10 && seed < 16)) needed.insert(id_of(seed, 200 + seed * 17));
    }
    ASSERT_TRUE(blobs->sync());
  }
  size_t begin = disk->trace().size();
  CrashCatalogue states;
  auto note = [&] { states.note(disk->trace().size(), *catalogue_); };
  note();
  {
    NotingDirectory packs(disk, note);
    CollectOptions options{.pack_bytes = 3000, .small_bytes = 0, .own = own_freely};
    auto collected = collect_packs(packs, kVolume, *catalogue_, {}, all_of(needed), options);
    ASSERT_TRUE(collected) << collected.error().message();
    EXPECT_GT(collected->packs_rewritten, 2u);
    EXPECT_GT(collected->packs_removed, 0u);
    note();
  }
  std::vector<DiskEvent> trace = disk->trace();
  std::mt19937_64 random(1);
  size_t cuts = 0, lefts = 0;
  Platters platters(disk->initial);
  for (size_t end = 0; end <= trace.size(); ++end) {
    if (end > begin || end == trace.size()) {
      ++cuts;
      for (int variant = 0; variant < 16; ++variant) {
        ++lefts;
        // Just before the transaction that was made here, or after it.
        const auto& places = states.at(variant % 2 == 0 || end == 0 ? end : end - 1);
        Files files = platters.survivors([&](size_t) -> Fate {
          if (variant < 2) return {};
          if (variant < 4) return {.kind = Fate::kLost};
          auto kind = static_cast<Fate::Kind>(random() % 3);
          return {.kind = kind, .sectors = random(), .cut = random() % 2 != 0 ? SIZE_MAX : random() % 600};
        });
        auto left = std::make_shared<CrashDisk>(files);
        auto catalogue = catalogue_in_memory();
        ASSERT_TRUE(catalogue->put_blobs({places.begin(), places.end()}));
        auto blobs = open_packs(std::make_unique<CrashDirectory>(left), kVolume, *catalogue, small);
        for (BlobId id : needed)
          ASSERT_TRUE(blobs->get(id))
              << "cut after event " << end << ": " << blobs->get(id).error().message();
        auto collected = blobs->collect({}, all_of(needed), 0.01);
        ASSERT_TRUE(collected) << collected.error().message();
        ASSERT_FALSE(collected->left) << collected->left->message();
        for (BlobId id : needed) ASSERT_TRUE(blobs->get(id)) << "collected after event " << end;
        uint64_t live = 0;
        for (BlobId id : needed) live += kBlobHeaderBytes + catalogue->blob(id)->value().stored_bytes;
        EXPECT_LT(*blobs->bytes_on_disk(), live + live / 50 + 20 * kPackHeaderBytes) << "something is left";
      }
    }
    if (end < trace.size()) platters.advance(trace[end]);
  }
  EXPECT_GT(cuts, 20u);
  RecordProperty("crash points", static_cast<int>(cuts));
  fmt::print("{} crash points, {} states left behind\n", cuts, lefts);
}

TEST_F(CollectTest, AFullDiskLeavesEverythingAndNoPartialPack) {
  auto disk = std::make_shared<CrashDisk>();
  PackOptions small{.pack_bytes = 50'000, .own = own_freely};
  auto blobs = open_packs(std::make_unique<CrashDirectory>(disk), kVolume, *catalogue_, small);
  put(*blobs, 0, 100);
  std::set<BlobId> needed;
  for (uint64_t seed = 0; seed < 100; seed += 2) needed.insert(id_of(seed));
  uint64_t before = *blobs->bytes_on_disk();
  disk->set_space(5000);
  Collected collected = collect(*blobs, needed);
  ASSERT_TRUE(collected.left);
  EXPECT_EQ(collected.left->code(), Code::kNoSpace);
  EXPECT_GT(*blobs->bytes_on_disk(), before - 3000) << "what was wholly dead has gone";
  EXPECT_LE(*blobs->bytes_on_disk(), before);
  disk->heal();
  EXPECT_FALSE(collect(*blobs, needed).left);
  EXPECT_LT(*blobs->bytes_on_disk(), before * 3 / 5);
  for (BlobId id : needed) EXPECT_TRUE(blobs->get(id));
}

}  // namespace
}  // namespace reprise::store
