// A catalogue that is no catalogue, packs that are damaged: refused, named, and made good again.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "base/hash.h"
#include "store/lmdb_check.h"
#include "store/repair.h"
#include "store/store.h"
#include "temp_directory.h"

namespace reprise::store {
namespace {

Bytes random_blob(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes out(size);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}

class DamageTest : public testing::Test {
 protected:
  void SetUp() override {
    auto store = Store::create(path_, {1, 2});
    ASSERT_TRUE(store) << store.error().message();
    fill(**store, 0, 300);
    for (int i = 0; i < 20; ++i) {
      SnapshotRecord record{.branch = "main", .label = std::string(static_cast<size_t>(i * 40), 'x')};
      record.root = hash128(random_blob(200, static_cast<uint64_t>(i)));
      record.vector = random_blob(3000, 7);  // on pages of its own
      ASSERT_TRUE((*store)->catalogue().add_snapshot(record));
    }
    ASSERT_TRUE((*store)->catalogue().remove_snapshot(3));  // leaves free pages
    MarkRecord mark{.name = "mark", .branch = "main", .log_index = 5, .token = "t", .time = {}};
    ASSERT_TRUE((*store)->catalogue().put_mark(mark, 5));
    ASSERT_TRUE((*store)->journal_directory("main"));
    store->reset();
    std::ifstream in(catalogue_, std::ios::binary);
    whole_.assign(std::istreambuf_iterator<char>(in), {});
    ASSERT_GT(whole_.size(), 50'000u);
  }
  static void fill(Store& store, uint64_t from, uint64_t to) {
    for (uint64_t seed = from; seed < to; ++seed) ASSERT_TRUE(store.blobs().put(random_blob(200, seed)));
    ASSERT_TRUE(store.blobs().sync());
  }
  void write_catalogue(const std::string& bytes) {
    std::filesystem::remove(catalogue_ + "-lock");
    std::ofstream(catalogue_, std::ios::binary | std::ios::trunc) << bytes;
  }
  // Everything a store is asked.
  static Status use(Access access, const std::string& path) {
    auto store = TRY(Store::open(path, access));
    Catalogue& catalogue = store->catalogue();
    TRY(catalogue.snapshots());
    TRY(catalogue.marks());
    TRY(catalogue.branches());
    for (uint64_t seed = 0; seed < 300; seed += 20) {
      auto got = store->blobs().get(hash128(random_blob(200, seed)));
      if (!got && got.error().code() != Code::kNotFound) return std::unexpected(got.error());
    }
    if (access == Access::kWrite) {
      fill(*store, 1000, 1020);
      TRY(catalogue.add_snapshot({.branch = "main"}));
    }
    return {};
  }

  TempDirectory directory_;
  const std::string path_ = directory_ / "s", catalogue_ = directory_ / "s/catalogue.lmdb";
  std::string whole_;
};

TEST_F(DamageTest, ASoundCatalogueIsTakenHoweverItGrewAndShrank) {
  std::mt19937_64 random(1);
  auto store = Store::open(path_);
  ASSERT_TRUE(store) << store.error().message();
  for (int round = 0; round < 60; ++round) {
    Catalogue::BlobPlaces places;
    for (int i = 0; i < 50; ++i) places.push_back({{random(), random()}, {1, random(), 5}});
    ASSERT_TRUE((*store)->catalogue().put_blobs(places));
    SnapshotRecord record{.branch = "main", .label = std::string(random() % 3000, 'l')};
    record.vector = Bytes(random() % 20'000);
    auto id = (*store)->catalogue().add_snapshot(record);
    ASSERT_TRUE(id);
    if (round % 3 == 0) {
      ASSERT_TRUE((*store)->catalogue().remove_snapshot(*id));
    }
    if (round % 20 == 19) {
      std::vector<uint64_t> ids;
      std::vector<SnapshotRecord> records = (*store)->catalogue().snapshots().value();
      for (const SnapshotRecord& each : records) ids.push_back(each.id);
      ASSERT_TRUE((*store)->catalogue().sweep(ids, [&](BlobId blob) { return blob.lo % 3 == 0; }));
    }
    auto file = open_host_directory(path_).value()->open("catalogue.lmdb", OpenMode::kRead);
    auto sound = check_lmdb(**file);
    ASSERT_TRUE(sound) << "round " << round << ": " << sound.error().message();
  }
}

// A file to which another process adds pages, and the transaction they belong to, after it was first looked
// at.
class GrowingFile final : public File {
 public:
  explicit GrowingFile(std::unique_ptr<File> file) : file_(std::move(file)) {}
  Result<size_t> pread(ByteSpan into, uint64_t offset) const override { return file_->pread(into, offset); }
  Result<uint64_t> size() const override { return looks_++ == 0 ? uint64_t{2 * 4096} : file_->size(); }
  Status pwrite(ByteView, uint64_t) override { return fail(Code::kReadOnly, "only read"); }
  Status resize(uint64_t) override { return fail(Code::kReadOnly, "only read"); }
  Status sync_data() override { return {}; }
  const std::string& path() const override { return file_->path(); }

 private:
  const std::unique_ptr<File> file_;
  mutable int looks_ = 0;
};

TEST_F(DamageTest, ACatalogueThatGrowsWhileItIsLookedAtIsSound) {
  GrowingFile file(open_host_directory(path_).value()->open("catalogue.lmdb", OpenMode::kRead).value());
  auto sound = check_lmdb(file);
  EXPECT_TRUE(sound) << sound.error().message();
}

TEST_F(DamageTest, ACatalogueCutAnywhereIsRefusedAndNamed) {
  std::vector<size_t> lengths = {1, 15, 16, 100, 151, 152, 153, 4095, 4096, 4097, 8191, 8192};
  for (size_t length = 3 * 4096; length < whole_.size(); length += 4096) {
    lengths.push_back(length);
    lengths.push_back(length - 1);
  }
  size_t refused = 0;
  for (size_t length : lengths) {
    write_catalogue(whole_.substr(0, length));
    auto opened = use(Access::kRead, path_);
    if (opened) continue;  // all that is in use is there
    ++refused;
    EXPECT_EQ(opened.error().code(), Code::kCorrupt) << length;
    EXPECT_THAT(opened.error().message(), testing::HasSubstr("catalogue.lmdb"));
    EXPECT_THAT(opened.error().message(), testing::HasSubstr("reprise repair")) << length;
  }
  EXPECT_GT(refused, lengths.size() * 3 / 4);
}

// An entry that stands for its neighbour as well, or is found by what it is not: that would be a record or a
// blob less, of which nobody would know. Where it is accepted nevertheless, the page was in use no more.
TEST_F(DamageTest, AnEntryThatIsFoundByAnothersKeyIsNoticed) {
  constexpr size_t kPage = 4096, kPointers = 16;
  size_t refused = 0, tried = 0;
  for (size_t page = 2 * kPage; page + kPage <= whole_.size(); page += kPage) {
    auto at = [&](size_t offset) { return load_value<uint16_t>(as_bytes(whole_).data() + page + offset); };
    const bool leaf = at(10) == 2;
    const size_t entries = leaf && at(12) > kPointers && at(12) < kPage ? (at(12) - kPointers) / 2 : 0;
    for (size_t entry = 0; entry < entries; ++entry) {
      const size_t pointer = page + kPointers + 2 * entry, key = page + at(kPointers + 2 * entry) + 8;
      for (bool neighbour : {true, false}) {
        if (neighbour && entry + 1 == entries) continue;
        std::string bad = whole_;
        if (neighbour) {
          bad.replace(pointer, 2, whole_, pointer + 2, 2);
        } else {
          bad[key] = static_cast<char>(bad[key] ^ 1);
        }
        write_catalogue(bad);
        ++tried;
        Status used = use(Access::kRead, path_);
        refused += !used;
        if (!used) continue;
        auto store = Store::open(path_, Access::kRead);
        ASSERT_TRUE(store);
        EXPECT_EQ((*store)->catalogue().snapshots()->size(), 19u);
        EXPECT_EQ((*store)->catalogue().mark("main", "mark")->value().log_index, 5u);
        for (uint64_t seed = 0; neighbour && seed < 300; ++seed)
          ASSERT_TRUE((*store)->blobs().get(hash128(random_blob(200, seed)))) << page << " " << entry;
      }
    }
  }
  EXPECT_GT(refused, tried / 4);
}

TEST_F(DamageTest, AMissingOrEmptyCatalogueIsNotBegunAnew) {
  for (bool missing : {true, false}) {
    write_catalogue("");
    if (missing) std::filesystem::remove(catalogue_);
    for (Access access : {Access::kRead, Access::kWrite}) {
      auto opened = Store::open(path_, access);
      ASSERT_FALSE(opened);
      EXPECT_EQ(opened.error().code(), Code::kCorrupt);
      EXPECT_THAT(opened.error().message(), testing::HasSubstr("reprise repair"));
    }
  }
}

// Pages of garbage, of zeros, of other pages, and single bytes: an error or the truth, and never the end of
// the process.
TEST_F(DamageTest, GarbageInACatalogueIsAnErrorAndNoCrash) {
  std::mt19937_64 random(1);
  size_t refused = 0, rounds = 600, pages = whole_.size() / 4096;
  for (size_t round = 0; round < rounds; ++round) {
    std::string bytes = whole_;
    size_t page = random() % pages;
    switch (round % 5) {
      case 0:
        for (size_t i = 0; i < 4096; ++i) bytes[page * 4096 + i] = static_cast<char>(random());
        break;
      case 1:
        bytes.replace(page * 4096, 4096, 4096, '\0');
        break;
      case 2:
        bytes.replace(page * 4096, 4096, whole_, (random() % pages) * 4096, 4096);
        break;
      case 3:  // where the structure is
        bytes[page * 4096 + random() % 64] = static_cast<char>(random());
        break;
      default:
        bytes[random() % bytes.size()] ^= static_cast<char>(1u << random() % 8);
    }
    write_catalogue(bytes);
    auto read = use(Access::kRead, path_);
    if (read) read = use(Access::kWrite, path_);
    if (!read) {
      ++refused;
      // A version of our own, which has no checksum, may be another one now.
      EXPECT_TRUE(read.error().code() == Code::kCorrupt || read.error().code() == Code::kUnsupported)
          << round << ": " << read.error().message();
    }
  }
  EXPECT_GT(refused, rounds / 4);
}

TEST_F(DamageTest, ACatalogueMadeAnewIsAsItWas) {
  Catalogue::Content before;
  Catalogue::BlobPlaces places;
  {
    auto store = Store::open(path_);
    before.snapshots = (*store)->catalogue().snapshots().value();
    before.marks = (*store)->catalogue().marks().value();
    ASSERT_TRUE((*store)->catalogue().for_each_blob(
        [&](BlobId id, const BlobPlace& at) { places.push_back({id, at}); }));
  }
  ASSERT_FALSE((*StoreRepair::begin(path_))->needed());
  std::filesystem::remove(catalogue_);
  auto repair = StoreRepair::begin(path_);
  ASSERT_TRUE(repair) << repair.error().message();
  ASSERT_TRUE((*repair)->needed());
  EXPECT_EQ((*repair)->catalogue().snapshots().value(), before.snapshots);
  std::vector<uint64_t> ids;
  for (const SnapshotRecord& record : before.snapshots) ids.push_back(record.id);
  auto aside = (*repair)->finish(ids, [](BlobId) { return true; });
  ASSERT_TRUE(aside) << aside.error().message();
  EXPECT_TRUE(aside->empty());
  repair->reset();
  auto store = Store::open(path_);
  ASSERT_TRUE(store) << store.error().message();
  EXPECT_EQ((*store)->catalogue().snapshots().value(), before.snapshots);
  Catalogue::BlobPlaces after;
  ASSERT_TRUE((*store)->catalogue().for_each_blob(
      [&](BlobId id, const BlobPlace& at) { after.push_back({id, at}); }));
  EXPECT_EQ(after, places);
  EXPECT_EQ((*store)->catalogue().add_snapshot({.branch = "main"}).value(), before.snapshots.back().id + 1);
  EXPECT_EQ(StoreRepair::begin(path_).error().code(), Code::kBusy) << "somebody has it open";
}

TEST_F(DamageTest, ADamagedPackIsSetAsideAndTheRestIsCopied) {
  BlobId spoilt = hash128(random_blob(200, 11)), dropped = hash128(random_blob(200, 12));
  BlobPlace place;
  {
    auto store = Store::open(path_);
    place = (*store)->catalogue().blob(spoilt)->value();
    std::fstream pack(directory_ / "s/packs/00000001.pack", std::ios::in | std::ios::out | std::ios::binary);
    pack.seekp(static_cast<std::streamoff>(place.offset + 60));
    pack.write("damage", 6);
  }
  auto repair = StoreRepair::begin(path_);
  ASSERT_TRUE(repair) << repair.error().message();
  ASSERT_TRUE((*repair)->needed());
  ASSERT_EQ((*repair)->damage().size(), 1u);
  EXPECT_THAT((*repair)->damage()[0].message(), testing::HasSubstr(spoilt.to_string()));
  EXPECT_THAT((*repair)->damage()[0].message(), testing::HasSubstr("00000001.pack"));
  auto aside = (*repair)->finish({1, 2}, [&](BlobId id) { return id != dropped; });
  ASSERT_TRUE(aside) << aside.error().message();
  EXPECT_THAT(*aside, testing::Contains("packs/00000001.pack.damaged"));
  EXPECT_THAT(*aside, testing::Contains("catalogue.lmdb.damaged"));
  EXPECT_THAT(*aside, testing::Contains("snapshots/00000004.snapshot.damaged"));
  repair->reset();
  auto store = Store::open(path_);
  ASSERT_TRUE(store) << store.error().message();
  EXPECT_EQ((*store)->catalogue().snapshots()->size(), 2u);
  EXPECT_EQ((*store)->catalogue().marks()->size(), 1u);
  for (uint64_t seed = 0; seed < 300; ++seed) {
    auto got = (*store)->blobs().get(hash128(random_blob(200, seed)));
    EXPECT_EQ(got.has_value(), seed != 11 && seed != 12) << seed;
  }
  store->reset();
  EXPECT_FALSE((*StoreRepair::begin(path_))->needed());
}

}  // namespace
}  // namespace reprise::store
