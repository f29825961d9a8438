// Inputs that the targets accept: where a fuzzer begins, and what the ordinary tests put to every target.
#include <sys/stat.h>

#include <string>

#include "base/check.h"
#include "fs/tree.h"
#include "journal/batch.h"
#include "journal/segment_writer.h"
#include "replay/wire.h"
#include "snapshot/stream.h"
#include "tests/fuzz/target.h"
#include "tests/fuzz/token.h"
#include "tests/fuzz/volume.h"
#include "tests/journal/fake_world.h"
#include "tests/journal/pack_segment.h"
#include "tests/replay/frames.h"
#include "tests/replay/link_pair.h"

namespace reprise::fuzz {
namespace {

using namespace journal;
using test::FakeDirectory;
using test::FakeDisk;

const OriginId kOrigin{.hi = 0xa, .lo = 1}, kOther{.hi = 0xb, .lo = 2};
const InodeId kFile{101}, kDirectory{102};
constexpr Timestamp kTime{.sec = 1'700'000'000, .nsec = 5};

void add_names(BatchBuilder& to) {
  to.add(fs::ClaimPrefix{3});
  to.add(fs::Create{
      .parent = kRootInode, .name = "dir", .inode = kDirectory, .mode = S_IFDIR | 0755, .time = kTime});
  to.add(fs::Create{.parent = kDirectory,
                    .name = "link",
                    .inode = {103},
                    .mode = S_IFLNK | 0777,
                    .target = "../elsewhere",
                    .time = kTime});
  to.add(fs::Create{
      .parent = kRootInode, .name = "file", .inode = kFile, .mode = S_IFREG | 0644, .uid = 1, .time = kTime});
  to.add(fs::Link{kDirectory, "other", kFile, kTime});
  to.add(fs::Rename{.old_parent = kDirectory,
                    .old_name = "other",
                    .new_parent = kRootInode,
                    .new_name = "third",
                    .inode = kFile,
                    .time = kTime});
  to.add(fs::Unlink{kRootInode, "third", kFile, kTime});
  to.add(fs::Rmdir{kRootInode, "dir", kDirectory, kTime});
}

void add_contents(BatchBuilder& to) {
  to.add(fs::Write{.inode = kFile, .offset = 4096, .data = as_bytes("some bytes of a file"), .time = kTime});
  to.add(fs::Write{.inode = kFile, .offset = 0, .data = as_bytes("and some more"), .time = kTime});
  to.add(fs::Truncate{kFile, 5000, kTime});
  to.add(fs::Allocate{kFile, fs::RangeChange::kReserve, true, 0, 8192, kTime});
  to.add(fs::CopyRange{kFile, 0, kFile, 8192, 13, kTime});
  to.add(fs::SetAttributes{
      .inode = kFile, .mask = 63, .mode = 0600, .uid = 2, .gid = 3, .atime = kTime, .mtime = kTime});
  to.add(fs::SetXattr{kFile, "user.mime", as_bytes("text/plain"), kTime});
  to.add(fs::RemoveXattr{kFile, "user.mime", kTime});
  to.add(fs::SetLimits{.bytes = 1 << 30, .inodes = 1000});
  to.add(fs::Barrier{"release", kTime});
}

// Three batches of kOrigin and one of kOther between them.
std::vector<Batch> batches() {
  BatchBuilder builder;
  auto finish = [&](BatchHeader header) {
    header.time = kTime;
    header.label = "request 42";
    return builder.finish(header);
  };
  std::vector<Batch> all;
  builder.add(fs::ClaimPrefix{3});
  all.push_back(finish({.kind = BatchKind::kOriginStart,
                        .origin = kOrigin,
                        .lsn = 1,
                        .lamport = 1,
                        .previous_origin = {.hi = 5, .lo = 5}}));
  add_names(builder);
  all.push_back(finish({.origin = kOrigin, .lsn = 2, .lamport = 2}));
  builder.add(fs::Barrier{"mark", kTime});
  all.push_back(finish({.origin = kOther, .lsn = 1, .lamport = 3, .dependencies = {{kOrigin, 2}}}));
  add_contents(builder);
  all.push_back(finish({.origin = kOrigin, .lsn = 3, .lamport = 4, .dependencies = {{kOther, 1}}}));
  return all;
}

Bytes join(ByteView front, const Batch& batch) {
  Bytes bytes(front.begin(), front.end());
  append_bytes(bytes, batch.message());
  append_bytes(bytes, batch.body());
  return bytes;
}

std::vector<Bytes> batch_seeds() {
  std::vector<Bytes> seeds;
  for (const Batch& batch : batches()) {
    Bytes words;
    append_value(words, static_cast<uint16_t>(batch.message().size() / 8));
    seeds.push_back(join(words, batch));
  }
  return seeds;
}

SegmentHeader first_header() {
  return {.volume = kVolumeOfSeeds.volume,
          .id = {.hi = 9, .lo = 9},
          .branch = kVolumeOfSeeds.branch,
          .sequence = 1,
          .first_index = 1};
}

// A segment of these batches, closed and opened again in the middle, or sealed.
Bytes segment(bool sealed, const SegmentHeader& header = first_header()) {
  auto disk = FakeDisk::create();
  FakeDirectory directory(disk);
  auto writer = *SegmentWriter::create(directory, header);
  LogIndex durable = 0;
  for (const Batch& batch : batches()) {
    writer->add(batch, durable);
    if (++durable == 2) CHECK(writer->add_summary(FrameKind::kClose, 2));
  }
  if (sealed) CHECK(writer->add_summary(FrameKind::kSeal, durable));
  CHECK(writer->flush());
  return disk->files.at(segment_name(header.sequence))->bytes;
}

std::vector<Bytes> segment_seeds() {
  std::vector<Bytes> seeds;
  for (bool sealed : {false, true}) {
    for (uint8_t flags : {0, 1, 5}) {
      Bytes seed{static_cast<std::byte>(flags)};
      append_bytes(seed, segment(sealed));
      seeds.push_back(std::move(seed));
    }
  }
  return seeds;
}

std::vector<Bytes> compressed_seeds() {
  std::vector<Bytes> seeds;
  Bytes packed = test::pack_segment(segment(true));
  for (uint8_t flags : {0, 1, 1 | 3 << 2}) {
    seeds.push_back({static_cast<std::byte>(flags)});
    append_bytes(seeds.back(), packed);
  }
  // To be packed: without patches or zeros, with one of a point's offset, with 1 MiB of zeros behind a frame.
  for (auto [patches, zeros] : {std::pair{0, 0}, {1, 0}, {0, 16}}) {
    Bytes seed{std::byte{2}, static_cast<std::byte>(patches), static_cast<std::byte>(zeros)};
    if (patches != 0) {
      append_value(seed, uint16_t{32});
      append_value(seed, uint64_t{400});
    }
    append_bytes(seed, segment(true));
    seeds.push_back(std::move(seed));
  }
  return seeds;
}

// A folder of a sealed segment, plain or compressed, and one that follows it.
std::vector<Bytes> folder_seeds() {
  std::vector<Bytes> seeds;
  SegmentHeader second = first_header();
  second.id.lo = 10;
  second.sequence = 2;
  second.first_index = batches().size() + 1;
  // Its batches go on where those of the first ended, in name only: it is empty but for its summaries.
  second.covered.set(kOrigin, 3);
  second.covered.set(kOther, 1);
  for (uint8_t pack : {0, 64}) {
    Bytes seed{std::byte{0}};
    auto add = [&](uint8_t kind, const Bytes& file) {
      append_value(seed, kind);
      append_value(seed, static_cast<uint16_t>(file.size()));
      append_bytes(seed, file);
    };
    add(static_cast<uint8_t>(1 | 16 | pack), segment(true));
    add(2 | 16 | 32, encode_segment_header(second));
    seeds.push_back(std::move(seed));
  }
  Bytes restarted{std::byte{0}};
  SegmentHeader restart = first_header();
  restart.sequence = 3;
  restart.restart = true;
  for (const auto& [kind, file] :
       {std::pair(uint8_t{1}, segment(false)), {uint8_t{3}, segment(false, restart)}}) {
    append_value(restarted, kind);
    append_value(restarted, static_cast<uint16_t>(file.size()));
    append_bytes(restarted, file);
  }
  seeds.push_back(std::move(restarted));
  return seeds;
}

fs::Head sample_tree() {
  fs::Head head = fs::Head::create(kTime);
  for (const Batch& batch : batches())
    batch.for_each([&](const fs::Operation& operation) {
      // What would take the names away again, is left out.
      bool removes = std::holds_alternative<fs::Rmdir>(operation);
      if (!removes) CHECK(head.apply(operation));
    });
  return head;
}

std::vector<Bytes> tree_stream_seeds() {
  Bytes stream;
  auto sent = snapshot::send_tree(sample_tree(), snapshot::kPieceBytes, [&](ByteView piece) -> Status {
    append_bytes(stream, piece);
    return {};
  });
  CHECK(sent);
  return {stream};
}

std::vector<replay::Control> controls() {
  Position position{.digest = {.lo = 1, .hi = 3}};
  position.vector.set(kOrigin, 3);
  position.vector.set(kOther, 1);
  return {replay::Hello{.volume = kVolumeOfSeeds.volume, .branch = "main", .position = position},
          replay::Refuse{.reason = "another volume"},
          replay::CatchUp{.decision = {.suffix_bytes = 2, .reason = "why"}, .target = position.vector},
          replay::SnapshotBegin{.position = position, .lamport = 4, .marks = {{"m", "r0.x"}}},
          replay::SnapshotEnd{.root = {.lo = 1, .hi = 2}, .bytes = 3},
          replay::Checkpoint{.position = position},
          replay::Ack{.vector = position.vector, .bytes = 9},
          replay::Heartbeat{.vector = position.vector},
          replay::Resync{.reason = "other digest"},
          replay::Bye{.reason = "done"},
          replay::Challenge{},
          replay::Proof{},
          replay::Sync{},
          replay::Synced{.vector = position.vector},
          replay::DifferenceBegin{{.position = position, .lamport = 4, .marks = {{"m", "r0.x"}}}},
          replay::DifferenceEnd{.batches = 3},
          replay::Held{.blobs = {1, 2}, .last = true}};
}

std::vector<Bytes> wire_seeds() {
  Bytes all{std::byte{0xff}};
  std::vector<Bytes> seeds;
  replay::Frames frames;
  for (const replay::Control& control : controls()) {
    seeds.push_back({std::byte{0x80}});
    append_bytes(seeds.back(), replay::Frames().of(control));
    append_bytes(all, frames.of(control));
  }
  for (const Batch& batch : batches()) append_bytes(all, frames.of(batch));
  append_bytes(all, frames.of_tree(as_bytes("bytes")));
  seeds.push_back(std::move(all));
  return seeds;
}

// What a leader says to a new follower whom it sends what differs from the tree that every volume begins
// with.
Bytes difference_seed() {
  replay::MemoryMember leader(kVolumeOfSeeds.volume);
  leader.write_file("a", "bytes");
  replay::Pinned pinned = *leader.pin();
  const Position& position = pinned.moment.position;
  Bytes frames{static_cast<std::byte>(128 | 15 | 32)};
  replay::Frames next;
  auto say = [&](const replay::Control& control) { append_bytes(frames, next.of(control)); };
  say(replay::Hello{.volume = kVolumeOfSeeds.volume,
                    .branch = "main",
                    .role = replay::Role::kLeader,
                    .position = position});
  say(replay::CatchUp{
      .decision = {.tier = replay::Tier::kDifference, .difference_bytes = 100, .reason = "why"},
      .target = position.vector});
  say(replay::DifferenceBegin{{.position = position, .lamport = pinned.moment.lamport, .marks = {}}});
  auto batches =
      replay::send_difference(fs::Head::create(Timestamp{}), pinned.view, [&](const Batch& batch) -> Status {
        append_bytes(frames, next.of(batch));
        return {};
      });
  say(replay::DifferenceEnd{.batches = batches.value()});
  say(replay::Checkpoint{.position = position});

  replay::MemoryMember follower(VolumeId{}, 2);
  replay::LinkPair pair(leader, follower);
  pair.follower_link().receive(ByteView(frames).subspan(1));
  CHECK(pair.follower_link().differences() == 1 && pair.session().checkpoints() == 1);
  return frames;
}

// What a leader and a follower say to each other: a new one replays, one of another origin is overwritten;
// with a token and without.
std::vector<Bytes> session_seeds() {
  std::vector<Bytes> seeds;
  struct Case {
    bool is_new = true, offers = false;
    int token = 0;
  };
  for (auto [is_new, offers, token] :
       {Case{}, {.is_new = false}, {.is_new = false, .offers = true}, {.token = 16}}) {
    replay::MemoryMember leader(kVolumeOfSeeds.volume);
    replay::MemoryMember follower(is_new ? VolumeId{} : kVolumeOfSeeds.volume, 2);
    leader.write_file("a", "bytes");
    if (!is_new) follower.write_file("own", "bytes");
    SameRandom leaders, followers;
    replay::SessionOptions options, of_follower;
    options.random = &leaders;
    of_follower.random = &followers;
    if (offers) of_follower.offer_from_bytes = 1;
    if (token != 0) options.token = of_follower.token = token_of_seeds();
    replay::LinkPair pair(leader, follower, options, of_follower);
    pair.record();
    pair.leader_link().want_synced(leader.vector());
    pair.run();
    CHECK(pair.session().caught_up() && follower.syncs() == 1);
    CHECK(is_new || (pair.tier() == replay::Tier::kMissingBlobs) == offers);
    seeds.push_back({static_cast<std::byte>(128 | 15 | (is_new ? 32 : 0) | token)});
    append_bytes(seeds.back(), pair.said_to_follower());
    seeds.push_back({static_cast<std::byte>(128 | 64 | 15 | token)});
    append_bytes(seeds.back(), pair.said_to_leader());
  }
  seeds.push_back(difference_seed());
  return seeds;
}

}  // namespace

const std::vector<Target>& targets() {
  static const std::vector<Target> all = {{"batch", fuzz_batch, batch_seeds},
                                          {"compressed", fuzz_compressed, compressed_seeds},
                                          {"folder", fuzz_folder, folder_seeds},
                                          {"segment", fuzz_segment, segment_seeds},
                                          {"session", fuzz_session, session_seeds},
                                          {"store", fuzz_store, store_seeds},
                                          {"tar", fuzz_tar, tar_seeds},
                                          {"tree_stream", fuzz_tree_stream, tree_stream_seeds},
                                          {"wire", fuzz_wire, wire_seeds},
                                          {"zip", fuzz_zip, zip_seeds}};
  return all;
}

}  // namespace reprise::fuzz
