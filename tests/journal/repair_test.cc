#include "journal/repair.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <set>

#include "journal/compressed_segment.h"
#include "journal/recovery.h"
#include "journal/segments_cursor.h"
#include "tests/journal/crash_disk.h"
#include "tests/journal/several_segments.h"
#include "tests/store/temp_directory.h"

namespace reprise::journal {
namespace {

using namespace test;

std::vector<RepairBase> bases_at(const std::vector<LogIndex>& indexes) {
  std::vector<RepairBase> bases;
  for (LogIndex index : indexes) {
    bases.push_back({.index = index, .vector = {}});
    bases.back().vector.set(kOriginA, index);
  }
  return bases;
}

LogIndex newest(const std::vector<RepairBase>& bases) {
  LogIndex index = 0;
  for (const RepairBase& base : bases) index = std::max(index, base.index);
  return index;
}

// The last batch in the state that can be had from what is left, and snapshots.
LogIndex state_after(const JournalRepair& repair, const std::vector<RepairBase>& bases) {
  return std::max(repair.last, newest(bases));
}

Result<JournalRepair> repair_on(const std::shared_ptr<FakeDisk>& disk,
                                const std::vector<RepairBase>& bases = {}) {
  FakeDirectory directory(disk);
  return repair_journal(directory, kIdentity, 0, bases, fake_random);
}

std::set<std::string> set_aside_in(const FakeDisk& disk) {
  std::set<std::string> names;
  for (const auto& [name, content] : disk.files)
    if (name.find(".cut-") != std::string::npos) names.insert(name);
  return names;
}

// Of bytes that are still in their place as well?
bool is_copy(const FakeDisk& disk, const std::string& name) {
  auto original = disk.files.find(name.substr(0, name.find(".cut-")));
  if (original == disk.files.end()) return false;
  const Bytes& all = original->second->bytes;
  const Bytes& some = disk.files.at(name)->bytes;
  return some.size() <= all.size() && std::equal(some.rbegin(), some.rend(), all.rbegin());
}

// What a byte of a segment belongs to: the batch with this log index; else, of all batches of the segment
// (its header) or of none (its seal or close, and what its header says that follows from the segment before).
struct Owner {
  std::set<LogIndex> batches;
  bool can_be_missed = false;  // where its batches need not follow others: they are found without it
};
std::map<std::string, std::vector<Owner>> owners_of(const std::shared_ptr<FakeDisk>& disk) {
  std::map<std::string, std::vector<Owner>> owners;
  FakeDirectory directory(disk);
  for (const auto& [name, content] : disk->files) {
    std::vector<Owner>& of_file = owners[name];
    auto reader = *SegmentReader::open(*directory.open(name, OpenMode::kRead));
    uint64_t header_bytes = reader->state().offset;
    std::set<LogIndex> all;
    of_file.resize(content->bytes.size());
    while (auto frame = *reader->next()) {
      if (!frame->is_batch()) continue;
      all.insert(frame->header.index);
      for (uint64_t at = frame->offset; at < frame->end(); ++at) of_file[at].batches = {frame->header.index};
    }
    for (uint64_t at = 0; at < header_bytes; ++at) {
      bool id = at >= kSegmentIdOffset && at < kSegmentIdOffset + 16;
      if (id || name == disk->files.begin()->first) of_file[at] = {.batches = all, .can_be_missed = !id};
    }
  }
  return owners;
}

void expect_sound(const std::shared_ptr<FakeDisk>& disk, const JournalRepair& repair,
                  const std::vector<RepairBase>& bases) {
  FakeDirectory directory(disk);
  auto report = verify_journal(directory, kIdentity, repair.last);
  ASSERT_TRUE(report);
  ASSERT_FALSE(report->problem) << report->problem->message();
  EXPECT_EQ(report->first, repair.first);
  EXPECT_EQ(report->last, repair.last);
  // It goes on from a snapshot, or from nothing.
  EXPECT_TRUE(repair.first == 1 || repair.first <= newest(bases) + 1);
  auto journal = open_on(disk, repair.last);
  ASSERT_TRUE(journal) << journal.error().message();
  auto cursor = (*journal)->read(repair.first);
  for (LogIndex i = repair.first; i <= repair.last; ++i)
    EXPECT_EQ(show((**cursor->next()).batch), show(make_batch(kOriginA, i)));
  EXPECT_FALSE(*cursor->next());
}

bool is_kept(const test::Files& files, const std::string& name, const Bytes& original);

test::Files files_of(const FakeDisk& disk) {
  test::Files files;
  for (const auto& [name, content] : disk.files) files[name] = content->bytes;
  return files;
}

// More than can be put right, within what lies under one checksum.
void spoil(Bytes& bytes, size_t at) {
  bytes[at] ^= std::byte{0x20};
  bytes[at ^ 1] ^= std::byte{0x20};
}

// Whatever is hit and whatever snapshots there are: the latest state that can be had is what is left, and
// every byte is somewhere.
TEST(Repair, LeavesTheLatestStateThereIsWhicheverByteIsHit) {
  auto good = several_segments();
  auto owners = owners_of(good);
  const std::vector<std::vector<LogIndex>> snapshots = {{},     {2},    {6}, {9}, {kBatches}, {kBatches + 5},
                                                        {1, 7}, {5, 10}};
  size_t kept_behind_damage = 0;
  for (const auto& [name, content] : good->files) {
    for (size_t at = 0; at < content->bytes.size(); at += 29) {
      const std::set<LogIndex>& bad = owners.at(name)[at].batches;
      const bool can_be_missed = owners.at(name)[at].can_be_missed;
      for (const auto& indexes : snapshots) {
        auto bases = bases_at(indexes);
        auto disk = good->copy();
        spoil(disk->files.at(name)->bytes, at);
        test::Files damaged = files_of(*disk);
        FakeDirectory directory(disk);
        auto before = verify_journal(directory, kIdentity, 0);
        ASSERT_TRUE(before) << before.error().message();
        ASSERT_TRUE(before->problem) << name << " " << at;
        EXPECT_NE(before->problem->message().find(name), std::string::npos) << before->problem->message();
        LogIndex expected = before->last;
        if (newest(bases) > before->last || bad.empty()) {
          expected = std::max(expected, newest(bases));
          while (expected < kBatches && (can_be_missed || !bad.contains(expected + 1))) ++expected;
        }

        auto repair = repair_on(disk, bases);
        ASSERT_TRUE(repair) << repair.error().message();
        ASSERT_EQ(state_after(*repair, bases), expected) << name << " " << at << ", of " << newest(bases);
        kept_behind_damage += repair->last > before->last ? 1 : 0;
        ASSERT_FALSE(repair->problems.empty());
        if (!repair->corrected.empty()) damaged[name] = content->bytes;
        auto expect_all_kept = [&](const char* when) {
          for (const auto& [other, bytes] : damaged)
            ASSERT_TRUE(is_kept(files_of(*disk), other, bytes))
                << when << other << ", " << name << " " << at << ", of " << newest(bases);
        };
        expect_all_kept("");
        expect_sound(disk, *repair, bases);
        expect_all_kept("after opening: ");
        bool unnamed = bad.size() > 1 && !can_be_missed;
        if (!bad.empty() && !before->torn_tail && !unnamed) {
          EXPECT_GE(repair->seen, *bad.begin());
        }
      }
    }
  }
  EXPECT_GT(kept_behind_damage, 50u);
}

// One byte is put right wherever it is: nothing is lost, with or without snapshots.
void expect_put_right(const std::shared_ptr<FakeDisk>& good, const std::string& name, size_t at,
                      unsigned flipped) {
  auto disk = good->copy();
  disk->files.at(name)->bytes[at] ^= static_cast<std::byte>(flipped);
  FakeDirectory directory(disk);
  auto before = verify_journal(directory, kIdentity, 0);
  ASSERT_TRUE(before && before->problem) << name << " " << at;
  auto repair = repair_on(disk);
  ASSERT_TRUE(repair) << repair.error().message();
  EXPECT_EQ(repair->last, kBatches) << name << " " << at;
  EXPECT_EQ(repair->cut_bytes, 0u) << name << " " << at;
  EXPECT_TRUE(repair->kept.empty()) << name << " " << at;
  ASSERT_EQ(repair->corrected.size(), 1u) << name << " " << at;
  EXPECT_NE(repair->corrected[0].find(fmt::format("{}: at offset {}: ", name, at)), std::string::npos)
      << repair->corrected[0];
  EXPECT_EQ(files_of(*disk), files_of(*good)) << name << " " << at;
}

TEST(Repair, PutsOneByteRightWhereverItIs) {
  auto good = several_segments();
  const auto last = std::prev(good->files.end());
  for (const auto& [name, content] : good->files)
    for (size_t at = 0; at < content->bytes.size(); at += 5)
      // A close at the very end is no batch, and is not missed.
      if (name != last->first || at + kSummaryFrameBytes < content->bytes.size() || at % 8 != 0)
        expect_put_right(good, name, at, 1 + static_cast<unsigned>(at) % 255);
}

TEST(Repair, PutsOneByteOfACompressedSegmentRight) {
  auto good = several_segments();
  FakeDirectory directory(good);
  ASSERT_TRUE(compress_segment(directory, 2, [] { return false; }));
  ASSERT_TRUE(replace_by_compressed(directory, 2));
  const std::string name = segment_name(2);
  for (size_t at = 0; at < good->files.at(name)->bytes.size(); ++at)
    expect_put_right(good, name, at, 1 + static_cast<unsigned>(at) % 255);
}

// Whatever it was, in a batch as large as programs write them; of a larger one, a bit.
TEST(Repair, PutsOneByteOfALargeBatchRight) {
  for (auto [bytes, flipped, is_found] : {std::tuple{98'304u, 0x5au, true},
                                          {200'000u, 0x40u, true},
                                          {200'000u, 0x41u, false},
                                          {(1u << 20) + 1, 0x40u, false}}) {
    auto good = FakeDisk::create();
    auto journal = *open_on(good);
    const Batch batch = make_batch(kOriginA, 1, bytes);
    ASSERT_TRUE(journal->reserve(batch.encoded_bytes()));
    ASSERT_TRUE(journal->append(batch));
    ASSERT_TRUE(journal->close());
    auto disk = good->copy();
    disk->files.at(segment_name(1))->bytes[bytes / 3] ^= static_cast<std::byte>(flipped);
    uint64_t looked_at = 0;
    FakeDirectory directory(disk);
    auto repair = repair_journal(directory, kIdentity, 0, {}, fake_random, nullptr,
                                 {.progress = [&](uint64_t done, uint64_t) { looked_at = done; }});
    ASSERT_TRUE(repair) << repair.error().message();
    EXPECT_EQ(repair->last, is_found ? 1u : 0u) << bytes;
    EXPECT_EQ(files_of(*disk) == files_of(*good), is_found) << bytes;
    EXPECT_EQ(looked_at != 0, bytes <= 1 << 20) << bytes;
  }
}

// However many they are, each is found.
TEST(Repair, PutsRightWhatLiesApart) {
  auto good = several_segments();
  auto disk = good->copy();
  for (auto& [name, content] : disk->files)
    for (size_t at = 200; at < content->bytes.size(); at += 700) content->bytes[at] ^= std::byte{0x81};
  auto repair = repair_on(disk);
  ASSERT_TRUE(repair) << repair.error().message();
  EXPECT_GT(repair->corrected.size(), 3u);
  EXPECT_EQ(files_of(*disk), files_of(*good));
}

// What was appended to a segment that has ended belongs to nothing, whatever it looks like.
TEST(Repair, CutsWhatWasAppendedToASegmentThatHasEnded) {
  for (bool compressed : {false, true}) {
    auto good = several_segments();
    if (compressed) {
      FakeDirectory directory(good);
      ASSERT_TRUE(compress_segment(directory, 2, [] { return false; }));
      ASSERT_TRUE(replace_by_compressed(directory, 2));
    }
    const std::string name = segment_name(2);
    const Bytes& all = good->files.at(name)->bytes;
    const Bytes end(all.end() - 200, all.end());
    for (const Bytes& junk : {Bytes(1), Bytes(47, std::byte{7}), Bytes(3 << 20, std::byte{0xff}), all, end}) {
      auto disk = good->copy();
      Bytes& bytes = disk->files.at(name)->bytes;
      bytes.insert(bytes.end(), junk.begin(), junk.end());
      FakeDirectory directory(disk);
      ASSERT_TRUE(verify_journal(directory, kIdentity, 0)->problem);
      auto repair = repair_on(disk);
      ASSERT_TRUE(repair) << repair.error().message();
      EXPECT_EQ(repair->last, kBatches) << compressed << " " << junk.size();
      EXPECT_EQ(repair->cut_bytes, junk.size());
      ASSERT_EQ(repair->kept.size(), 1u);
      EXPECT_EQ(disk->files.at(repair->kept[0])->bytes, junk);
      disk->files.erase(repair->kept[0]);
      EXPECT_EQ(files_of(*disk), files_of(*good));
    }
  }
}

// What the header of a segment says follows from what is before it.
TEST(Repair, MakesAHeaderAnewThatIsDamagedInManyPlaces) {
  auto good = several_segments();
  for (bool compressed : {false, true}) {
    if (compressed) {
      FakeDirectory directory(good);
      ASSERT_TRUE(compress_segment(directory, 2, [] { return false; }));
      ASSERT_TRUE(replace_by_compressed(directory, 2));
    }
    const std::string name = segment_name(2);
    FakeDirectory directory(good);
    auto reader = *SegmentReader::open(*directory.open(name, OpenMode::kRead));
    const size_t header_bytes = encode_segment_header(reader->header()).size(), id = kSegmentIdOffset;
    auto spoiled = [&](size_t begin, size_t end) {
      auto disk = good->copy();
      Bytes& bytes = disk->files.at(name)->bytes;
      for (size_t at = begin; at < end; ++at) bytes[at] ^= std::byte{0x55};
      return disk;
    };
    size_t made = 0;
    for (auto [begin, end] :
         {std::pair<size_t, size_t>{84, 86}, {0, 4}, {8, id}, {id + 16, header_bytes - 8}}) {
      auto disk = spoiled(begin, end);
      auto repair = repair_on(disk);
      ASSERT_TRUE(repair) << repair.error().message();
      EXPECT_EQ(repair->last, kBatches) << begin;
      EXPECT_TRUE(repair->kept.empty()) << begin;
      EXPECT_EQ(files_of(*disk), files_of(*good)) << begin;
      ++made;
    }
    EXPECT_EQ(made, 4u);
    // Its own checksum too: then the seal tells, which rests on it.
    auto disk = spoiled(id + 16, header_bytes);
    auto repair = repair_on(disk);
    ASSERT_TRUE(repair);
    EXPECT_EQ(files_of(*disk) == files_of(*good), !compressed);
    // Where the id is wrong as well, no checksum agrees: nothing is guessed.
    disk = spoiled(id + 3, id + 6);
    repair = repair_on(disk);
    ASSERT_TRUE(repair);
    EXPECT_EQ(repair->last, reader->header().first_index - 1);
    EXPECT_TRUE(repair->corrected.empty());
    EXPECT_FALSE(repair->kept.empty());
  }
}

// Each place that is damaged is named once, wherever frames are found behind it, and no more than are asked
// for.
TEST(Verify, AllThatIsDamagedIsNamed) {
  auto good = several_segments();
  std::vector<std::pair<std::string, uint64_t>> frames;  // of batches
  FakeDirectory directory(good);
  for (const auto& [name, content] : good->files) {
    auto reader = *SegmentReader::open(*directory.open(name, OpenMode::kRead));
    while (auto frame = *reader->next())
      if (frame->is_batch()) frames.emplace_back(name, frame->offset);
  }
  ASSERT_EQ(frames.size(), kBatches);
  for (size_t step : {2, 3, 5}) {
    for (size_t into : {size_t{8}, kFrameHeaderBytes + 8}) {  // a header, or only a batch
      auto disk = good->copy();
      size_t spoiled = 0;
      for (size_t i = 0; i < frames.size(); i += step, ++spoiled)
        spoil(disk->files.at(frames[i].first)->bytes, frames[i].second + into);
      FakeDirectory damaged(disk);
      auto report = *verify_journal(damaged, kIdentity, 0);
      ASSERT_TRUE(report.problem);
      auto further = *further_damage(damaged, kIdentity, report, 100);
      EXPECT_EQ(further.size() + 1, spoiled) << step << " " << into;
      std::set<std::string> said = {report.problem->message()};
      for (const Error& error : further) said.insert(error.message());
      EXPECT_EQ(said.size(), spoiled);
      for (size_t i = 0; i < frames.size(); i += step) {
        const std::string where = fmt::format("{}: at offset {}:", frames[i].first, frames[i].second);
        EXPECT_TRUE(std::ranges::any_of(said, [&](const std::string& s) { return s.contains(where); }))
            << where;
      }
      EXPECT_EQ(further_damage(damaged, kIdentity, report, 1)->size(), 1u);
    }
  }
  // Headers of segments, and one that is missing.
  auto disk = good->copy();
  spoil(disk->files.at(segment_name(1))->bytes, 20);
  spoil(disk->files.at(segment_name(3))->bytes, 20);
  FakeDirectory damaged(disk);
  auto report = *verify_journal(damaged, kIdentity, 0);
  auto further = *further_damage(damaged, kIdentity, report, 100);
  ASSERT_EQ(further.size(), 1u);
  EXPECT_TRUE(further[0].message().contains(segment_name(3))) << further[0].message();
  disk = good->copy();
  spoil(disk->files.at(segment_name(1))->bytes, frames[0].second + 8);
  disk->files.erase(segment_name(2));
  FakeDirectory without(disk);
  report = *verify_journal(without, kIdentity, 0);
  EXPECT_EQ(further_damage(without, kIdentity, report, 100)->size(), 1u);
}

// On the host's disk, where holes are; a large file of them is neither read nor written.
TEST(Repair, NeitherReadsNorWritesHoles) {
  constexpr uint64_t kLength = uint64_t{1} << 40;
  struct Case {
    std::string what;
    uint64_t sequence;  // 0: the last
    LogIndex left;
  };
  for (const auto& [what, sequence, left] : {Case{"sealed", 1, kBatches}, Case{"compressed", 2, kBatches},
                                             Case{"last", 0, kBatches}, Case{"nothing else", 1, 0}}) {
    auto good = several_segments();
    FakeDirectory in_memory(good);
    ASSERT_TRUE(compress_segment(in_memory, 2, [] { return false; }));
    ASSERT_TRUE(replace_by_compressed(in_memory, 2));
    TempDirectory temporary;
    auto directory = *open_host_directory(temporary.path());
    for (const auto& [name, content] : good->files)
      ASSERT_TRUE((*directory->open(name, OpenMode::kCreate))->pwrite(content->bytes, 0));
    auto file =
        *directory->open(segment_name(sequence == 0 ? good->files.size() : sequence), OpenMode::kReadWrite);
    if (left == 0) {
      ASSERT_TRUE(file->resize(0));
    }
    ASSERT_TRUE(file->resize(kLength));
    auto repair = repair_journal(*directory, kIdentity, 0, {}, fake_random);
    ASSERT_TRUE(repair) << what << ": " << repair.error().message();
    EXPECT_EQ(repair->last, left) << what;
    uint64_t kept = 0;
    for (const std::string& name : repair->kept) kept += *(*directory->open(name, OpenMode::kRead))->size();
    EXPECT_GE(kept, kLength - 2000) << what;
    EXPECT_EQ(kept, repair->cut_bytes) << what;
    for (const std::string& name : repair->kept) {
      struct stat st;
      ASSERT_EQ(::stat((temporary.path() + "/" + name).c_str(), &st), 0);
      EXPECT_LT(st.st_blocks, 1000) << name;
    }
  }
}

// Cut short, moved or gone: the next segment says that there was one, and what it said.
TEST(Repair, MakesASealAnewThatWasCutShortOrMoved) {
  auto good = several_segments();
  const std::string name = segment_name(2);
  const size_t at = good->files.at(name)->bytes.size() - kSummaryFrameBytes;
  auto expect_as_it_was = [&](const char* what, auto&& spoil_seal) {
    auto disk = good->copy();
    spoil_seal(disk->files.at(name)->bytes);
    auto repair = repair_on(disk);
    ASSERT_TRUE(repair) << what << ": " << repair.error().message();
    EXPECT_EQ(repair->last, kBatches) << what;
    for (const std::string& kept : repair->kept) disk->files.erase(kept);
    EXPECT_EQ(files_of(*disk), files_of(*good)) << what;
  };
  expect_as_it_was("a byte less", [&](Bytes& bytes) { bytes.pop_back(); });
  expect_as_it_was("half", [&](Bytes& bytes) { bytes.resize(at + kSummaryFrameBytes / 2); });
  expect_as_it_was("gone", [&](Bytes& bytes) { bytes.resize(at); });
  expect_as_it_was("8 bytes missing in it", [&](Bytes& bytes) {
    bytes.erase(bytes.begin() + static_cast<ptrdiff_t>(at) + 16,
                bytes.begin() + static_cast<ptrdiff_t>(at) + 24);
  });
  expect_as_it_was("moved", [&](Bytes& bytes) {
    bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(at), 16, std::byte{1});
  });
}

// What can be put right is, wherever it lies behind damage that cannot: it costs nothing.
TEST(Repair, PutsRightWhatLiesBehindOtherDamage) {
  auto good = several_segments();
  auto owners = owners_of(good);
  const auto bases = bases_at({5});
  for (const std::string& name : {segment_name(2), segment_name(3)}) {
    const std::vector<Owner>& bytes = owners.at(name);
    for (size_t at = 0; at < bytes.size(); at += 41) {
      if (bytes[at].batches == std::set<LogIndex>{2}) continue;
      auto disk = good->copy();
      Bytes& first = disk->files.begin()->second->bytes;
      const auto& of_first = owners.at(disk->files.begin()->first);
      const auto second = std::ranges::find(of_first, std::set<LogIndex>{2}, &Owner::batches);
      ASSERT_NE(second, of_first.end());
      std::fill_n(first.begin() + (second - of_first.begin()) + 40, 40, std::byte{7});
      disk->files.at(name)->bytes[at] ^= std::byte{0x11};
      auto repair = repair_on(disk, bases);
      ASSERT_TRUE(repair) << repair.error().message();
      EXPECT_EQ(repair->last, kBatches) << name << " " << at;
      EXPECT_EQ(repair->corrected.size(), 1u) << name << " " << at;
      expect_sound(disk, *repair, bases);
    }
  }
}

TEST(Repair, PutsRightHoweverManyThereAre) {
  auto good = several_segments();
  auto disk = good->copy();
  size_t changed = 0;
  for (auto& [name, content] : disk->files) {
    auto reader = *SegmentReader::open(*FakeDirectory(good).open(name, OpenMode::kRead));
    while (auto frame = *reader->next()) {
      content->bytes[frame->offset + 9] ^= std::byte{1};  // of its header,
      content->bytes[frame->end() - 20] ^= std::byte{2};  // and of what it holds
      changed += 2;
    }
  }
  ASSERT_GT(changed, 20u);
  auto repair = repair_on(disk);
  ASSERT_TRUE(repair) << repair.error().message();
  EXPECT_EQ(files_of(*disk), files_of(*good));
}

// What a seal says is known from what is before it, and which chain the next segment begins with.
TEST(Repair, MakesASealAnewOfWhichNothingIsLeft) {
  auto good = several_segments();
  auto disk = good->copy();
  Bytes& bytes = disk->files.begin()->second->bytes;
  std::fill(bytes.end() - kSummaryFrameBytes, bytes.end(), std::byte{0});
  auto repair = repair_on(disk);
  ASSERT_TRUE(repair) << repair.error().message();
  EXPECT_EQ(repair->last, kBatches);
  EXPECT_EQ(files_of(*disk), files_of(*good));
}

TEST(Repair, MakesACloseAnewOfWhichNothingIsLeft) {
  auto good = FakeDisk::create();
  for (LogIndex i = 1; i <= kBatches; ++i) {
    auto journal = *open_on(good, i - 1);
    ASSERT_TRUE(journal->append(make_batch(kOriginA, i)));
    ASSERT_TRUE(journal->close());
  }
  FakeDirectory directory(good);
  size_t closes = 0;
  for (const auto& [name, content] : good->files) {
    auto reader = *SegmentReader::open(*directory.open(name, OpenMode::kRead));
    while (auto frame = *reader->next()) {
      if (frame->header.kind != FrameKind::kClose || frame->end() == reader->limit()) continue;
      auto disk = good->copy();
      auto begin = disk->files.at(name)->bytes.begin() + static_cast<ptrdiff_t>(frame->offset);
      std::fill_n(begin, kSummaryFrameBytes, std::byte{0xff});
      auto repair = repair_on(disk);
      ASSERT_TRUE(repair) << repair.error().message();
      EXPECT_EQ(repair->last, kBatches);
      EXPECT_EQ(files_of(*disk), files_of(*good)) << name << " " << frame->offset;
      ++closes;
    }
  }
  EXPECT_GT(closes, 5u);
}

// A gap of a close's length, behind which a batch is missing, was no close.
TEST(Repair, MakesNoCloseWhereABatchIsMissing) {
  for (LogIndex missing : {0, 1}) {
    auto disk = several_segments();
    while (disk->files.size() > 1) disk->files.erase(std::prev(disk->files.end()));
    FakeDirectory directory(disk);
    auto reader = *SegmentReader::open(*directory.open(segment_name(1), OpenMode::kRead));
    ASSERT_TRUE(*reader->next());
    SegmentState state = reader->state();
    auto file = *directory.open(segment_name(1), OpenMode::kReadWrite);
    ASSERT_TRUE(file->resize(state.offset));
    state.offset += kSummaryFrameBytes;
    state.next_index += missing;
    SegmentWriter writer(std::move(file), reader->header().id, state);
    writer.add(make_batch(kOriginA, 2 + missing), 0);
    ASSERT_TRUE(writer.sync());
    auto repair = repair_on(disk);
    ASSERT_TRUE(repair) << repair.error().message();
    EXPECT_EQ(repair->corrected.size(), missing == 0 ? 1u : 0u);
    EXPECT_EQ(repair->last, missing == 0 ? 2u : 1u);
  }
}

TEST(Repair, WholeSegmentsBehindTheDamageStayAsTheyAre) {
  auto disk = several_segments();
  const test::Files before = files_of(*disk);
  spoil(disk->files.begin()->second->bytes, 400);
  auto repair = repair_on(disk, bases_at({kBatches - 1}));
  ASSERT_TRUE(repair) << repair.error().message();
  const std::string damaged = before.begin()->first;
  EXPECT_EQ(repair->kept, (std::vector<std::string>{damaged + ".cut-1"}));
  EXPECT_EQ(repair->last, kBatches);
  for (const auto& [name, bytes] : before)
    if (name != damaged) {
      EXPECT_EQ(disk->files.at(name)->bytes, bytes) << name;
    }
}

// What lies in the same segment behind the damage is no whole segment, and is kept all the same.
TEST(Repair, KeepsWhatASnapshotReachesWithinOneSegment) {
  auto disk = FakeDisk::create();
  {
    auto journal = *Journal::open(std::make_unique<FakeDirectory>(disk), kIdentity, {.compress = false},
                                  fake_random, 0, nullptr);
    for (LogIndex i = 1; i <= kBatches; ++i) ASSERT_TRUE(journal->append(make_batch(kOriginA, i)));
    ASSERT_TRUE(journal->close());
  }
  ASSERT_EQ(disk->files.size(), 1u);
  auto owners = owners_of(disk);
  const std::string name = disk->files.begin()->first;
  const std::vector<Owner>& of_file = owners.at(name);
  auto second = std::ranges::find_if(
      of_file, [](const Owner& owner) { return owner.batches == std::set<LogIndex>{2}; });
  spoil(disk->files.at(name)->bytes, static_cast<size_t>(second - of_file.begin()) + 100);
  auto bases = bases_at({3, 8});
  auto repair = repair_on(disk, bases);
  ASSERT_TRUE(repair) << repair.error().message();
  EXPECT_EQ(repair->first, 4u) << "history is kept as far back as there is a snapshot";
  EXPECT_EQ(repair->last, kBatches);
  EXPECT_EQ(repair->kept, (std::vector<std::string>{name + ".cut-1"}));
  expect_sound(disk, *repair, bases);
}

// A segment in another's place as well, and bytes behind its own end: the log goes on behind it all the same.
TEST(Repair, WhatLiesBehindTheEndOfASegmentEndsNoRun) {
  auto disk = several_segments();
  const std::string first = disk->files.begin()->first, second = std::next(disk->files.begin())->first;
  FakeDirectory directory(disk);
  const LogIndex begins =
      SegmentReader::open(*directory.open(second, OpenMode::kRead)).value()->header().first_index;
  disk->files.at(first)->bytes = disk->files.at(second)->bytes;
  disk->files.at(second)->bytes.resize(disk->files.at(second)->bytes.size() + 80);
  auto bases = bases_at({begins - 1});
  auto repair = repair_on(disk, bases);
  ASSERT_TRUE(repair) << repair.error().message();
  EXPECT_EQ(repair->last, kBatches);
  expect_sound(disk, *repair, bases);
}

TEST(Repair, SaysUpToWhereThereHadBeenBatches) {
  auto good = several_segments();
  auto owners = owners_of(good);
  for (const auto& [name, of_file] : owners) {
    for (size_t at = 0; at < of_file.size(); at += 50) {
      const std::set<LogIndex>& bad = of_file[at].batches;
      if (bad.size() != 1 || *bad.begin() > 8) continue;
      auto disk = good->copy();
      spoil(disk->files.at(name)->bytes, at);
      auto repair = repair_on(disk);
      ASSERT_TRUE(repair);
      EXPECT_EQ(repair->seen, kBatches) << name << " " << at;
    }
  }
}

// A pipe of that name keeps nobody waiting (base/), and is set aside like any file that is no segment.
TEST(Repair, SetsAsideWhatIsNoSegment) {
  auto disk = several_segments();
  std::string name = std::next(disk->files.begin())->first;
  disk->files.at(name)->bytes.clear();
  auto bases = bases_at({kBatches - 1});
  auto repair = repair_on(disk, bases);
  ASSERT_TRUE(repair) << repair.error().message();
  EXPECT_EQ(repair->last, kBatches);
  EXPECT_TRUE(disk->files.contains(name + ".cut-1"));
  expect_sound(disk, *repair, bases);
}

TEST(Repair, OfAGoodJournalChangesNothing) {
  auto disk = several_segments();
  int calls = disk->calls;
  auto repair = repair_on(disk);
  ASSERT_TRUE(repair);
  EXPECT_TRUE(repair->kept.empty());
  EXPECT_EQ(repair->last, kBatches);
  EXPECT_EQ(disk->calls, calls);
}

TEST(Repair, MayFailAnywhereAndBeRunAgain) {
  const std::vector<std::vector<RepairBase>> some = {
      {}, bases_at({kBatches}), bases_at({5, 9}), bases_at({7})};
  auto damaged = several_segments();
  spoil(damaged->files.at("0000000002.seg")->bytes, 400);
  for (const auto& bases : some) {
    LogIndex end = state_after(*repair_on(damaged->copy(), bases), bases);
    for (int k = 0;; ++k) {
      auto disk = damaged->copy();
      disk->calls_until_failure = k / 2;
      disk->fails_once = k % 2 != 0;
      auto first = repair_on(disk, bases);
      std::set<std::string> aside = set_aside_in(*disk);
      disk->calls_until_failure = -1;
      if (!first) {
        for (const std::string& name : aside) {
          bool named = first.error().message().find(name) != std::string::npos;
          // Where nothing works any more a copy cannot be taken back either.
          EXPECT_TRUE(named || (!disk->fails_once && is_copy(*disk, name)))
              << k << ": " << name << ": " << first.error().message();
        }
      }
      auto second = repair_on(disk, bases);
      ASSERT_TRUE(second) << k << ": " << second.error().message();
      EXPECT_EQ(state_after(*second, bases), end) << k;
      EXPECT_TRUE(open_on(disk)) << k;
      EXPECT_GE(all_bytes(*disk), all_bytes(*damaged)) << k;
      if (first) break;
      ASSERT_LT(k, 400);
    }
  }
}

// Is every byte of the segment still there: in its place, in a file that was set aside, or in both together?
bool is_kept(const test::Files& files, const std::string& name, const Bytes& original) {
  auto place = files.find(name);
  Bytes left = place == files.end() ? Bytes() : place->second;
  // In its place something may have been written behind it since.
  auto begins_with = [&](size_t bytes) {
    return left.size() >= bytes &&
           std::equal(left.begin(), left.begin() + static_cast<ptrdiff_t>(bytes), original.begin());
  };
  if (begins_with(original.size())) return true;
  return std::ranges::any_of(files, [&](const auto& file) {
    const Bytes& aside = file.second;
    if (!file.first.starts_with(name + ".cut-") || aside.size() > original.size()) return false;
    return std::equal(aside.rbegin(), aside.rend(), original.rbegin()) &&
           begins_with(original.size() - aside.size());
  });
}

// Power fails at every event of a repair, and whatever was not synced is there or not: no byte is lost, and
// what is found can be repaired again.
void expect_nothing_destroyed(const test::Files& damaged, const std::vector<RepairBase>& bases = {}) {
  auto disk = std::make_shared<test::CrashDisk>(damaged);
  test::CrashDirectory directory(disk);
  auto repaired = repair_journal(directory, kIdentity, 0, bases, fake_random);
  ASSERT_TRUE(repaired) << repaired.error().message();
  ASSERT_FALSE(repaired->kept.empty());
  test::Platters platters(damaged);
  FakeRandom chance(11);
  size_t points = 0;
  auto check = [&](const test::Files& files, const char* which) {
    ++points;
    for (const auto& [name, bytes] : damaged)
      ASSERT_TRUE(is_kept(files, name, bytes)) << name << " after " << points << ", " << which;
    test::CrashDirectory left(std::make_shared<test::CrashDisk>(files));
    auto again = repair_journal(left, kIdentity, 0, bases, fake_random);
    ASSERT_TRUE(again) << points << ", " << which;
    auto report = verify_journal(left, kIdentity, 0);
    ASSERT_TRUE(report && !report->problem) << points << ", " << which;
    ASSERT_EQ(state_after(*again, bases), state_after(*repaired, bases)) << points << ", " << which;
  };
  for (const test::DiskEvent& event : disk->trace()) {
    platters.advance(event);
    check(platters.survivors([](size_t) { return test::Fate{}; }), "all kept");
    check(platters.survivors([](size_t) { return test::Fate{.kind = test::Fate::kLost}; }), "all lost");
    for (int n = 0; n < 8; ++n) {
      check(platters.survivors([&](size_t) {
        auto kind = static_cast<test::Fate::Kind>(chance.next() % 3);
        return test::Fate{.kind = kind, .sectors = chance.next()};
      }),
            "any");
    }
  }
  EXPECT_GE(points, 20u);
}

TEST(Repair, DestroysNothingWhereverPowerFails) {
  const auto good = several_segments();
  for (const auto& [name, content] : good->files) {
    auto disk = good->copy();
    spoil(disk->files.at(name)->bytes, 400);
    test::Files damaged;
    for (const auto& [other, bytes] : disk->files) damaged[other] = bytes->bytes;
    expect_nothing_destroyed(damaged);
    for (LogIndex index : {3, 6, 9, 11}) expect_nothing_destroyed(damaged, bases_at({index}));
  }
}

TEST(Repair, DestroysNothingOfACompressedOneWhereverPowerFails) {
  auto disk = several_segments();
  FakeDirectory directory(disk);
  ASSERT_TRUE(compress_segment(directory, 2, [] { return false; }));
  ASSERT_TRUE(replace_by_compressed(directory, 2));
  const size_t size = disk->files.at("0000000002.seg")->bytes.size();
  for (size_t at : {size / 2, size - 60}) {  // a block; the index, which is made anew
    test::Files damaged = files_of(*disk);
    spoil(damaged.at("0000000002.seg"), at);
    expect_nothing_destroyed(damaged);
    for (LogIndex index : {5, 7, 10}) expect_nothing_destroyed(damaged, bases_at({index}));
  }
}

// Nothing is damaged; but what is known to have been on the disk is not there, and a snapshot holds more than
// what is left.
TEST(Repair, AJournalThatEndsBeforeASnapshotIsSetAside) {
  auto disk = several_segments();
  uint64_t before = all_bytes(*disk);
  FakeDirectory directory(disk);
  auto bases = bases_at({kBatches + 3});
  auto kept = repair_journal(directory, kIdentity, kBatches, bases, fake_random);
  ASSERT_TRUE(kept);
  EXPECT_TRUE(kept->kept.empty()) << "an overwrite that a crash interrupted is no case for repair";
  auto repair = repair_journal(directory, kIdentity, kBatches + 3, bases, fake_random);
  ASSERT_TRUE(repair);
  EXPECT_EQ(repair->kept.size(), set_aside_in(*disk).size());
  EXPECT_TRUE(list_segments(directory)->empty());
  EXPECT_EQ(all_bytes(*disk), before) << "bytes were destroyed";
}

}  // namespace
}  // namespace reprise::journal
