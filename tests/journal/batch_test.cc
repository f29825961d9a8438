#include "journal/batch.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/hash.h"
#include "journal/schema.h"
#include "tests/journal/batches.h"

namespace reprise::journal {
namespace {

using test::kOriginA;
using test::kOriginB;
using test::OperationDraw;
using test::OwnedOperation;
using test::show;

std::shared_ptr<Bytes> bytes_of(const Batch& batch) {
  auto bytes = std::make_shared<Bytes>();
  append_bytes(*bytes, batch.message());
  append_bytes(*bytes, batch.body());
  return bytes;
}

Result<Batch> parse_with_good_checksum(std::shared_ptr<Bytes> bytes, size_t message_bytes) {
  uint64_t checksum = hash64(*bytes);
  return Batch::parse(std::move(bytes), message_bytes, checksum);
}

RC_GTEST_PROP(Batch, ParseGivesTheOperationsThatWereAdded, ()) {
  std::vector<OwnedOperation> operations;
  std::string expected;
  for (int kind = 0; kind < OperationDraw::kKinds; ++kind) operations.push_back(OperationDraw::any(kind));
  for (int more = *rc::gen::inRange(0, 10); more > 0; --more) {
    operations.push_back(OperationDraw::any(*rc::gen::inRange(0, OperationDraw::kKinds)));
  }
  BatchBuilder builder;
  for (const auto& owned : operations) {
    RC_ASSERT(builder.try_add(owned.operation));
    expected += "\n" + show(owned.operation);
  }
  std::string label = "request 42, whose label is longer than a short string";
  BatchHeader header{.origin = kOriginA,
                     .lsn = 9,
                     .lamport = 77,
                     .time = {-5, 999'999'999},
                     .label = label,
                     .dependencies = {{kOriginB, 3}, {{.hi = 0xc, .lo = 0}, 1}}};
  Batch built = builder.finish(header);
  RC_ASSERT(builder.empty());
  RC_ASSERT(built.operation_count() == operations.size());
  label = "gone";

  auto parsed = Batch::parse(bytes_of(built), built.message().size(), built.checksum());
  RC_ASSERT(parsed.has_value());
  RC_ASSERT(show(*parsed) == show(built));
  RC_ASSERT(show(built).ends_with(expected));
  RC_ASSERT(show(built).find("request 42, whose label") != std::string::npos);
  RC_ASSERT(parsed->header().dependencies.size() == 2u);
}

TEST(Batch, BuilderForgetsTheBatchBefore) {
  BatchBuilder builder;
  builder.add(fs::Write{.inode = {2}, .data = as_bytes("a longer first batch"), .time = {}});
  builder.finish({.origin = kOriginA, .lsn = 1});
  builder.add(fs::Write{.inode = {2}, .data = as_bytes("second"), .time = {}});
  Batch second = builder.finish({.origin = kOriginA, .lsn = 2});
  BatchBuilder fresh;
  fresh.add(fs::Write{.inode = {2}, .data = as_bytes("second"), .time = {}});
  Batch alone = fresh.finish({.origin = kOriginA, .lsn = 2});
  EXPECT_EQ(to_hex(*bytes_of(second)), to_hex(*bytes_of(alone)));
}

TEST(Batch, AnOriginStartNamesItsPredecessor) {
  BatchBuilder builder;
  builder.add(fs::ClaimPrefix{12});
  Batch built = builder.finish(
      {.kind = BatchKind::kOriginStart, .origin = kOriginA, .lsn = 1, .previous_origin = kOriginB});
  auto parsed = Batch::parse(bytes_of(built), built.message().size(), built.checksum());
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->header().kind, BatchKind::kOriginStart);
  EXPECT_EQ(parsed->header().previous_origin, kOriginB);
}

TEST(Batch, EveryFlippedByteIsRefused) {
  Batch batch = test::make_batch(kOriginA, 3);
  for (size_t i = 0; i < batch.encoded_bytes(); ++i) {
    auto bytes = bytes_of(batch);
    (*bytes)[i] ^= std::byte{0x10};
    auto parsed = Batch::parse(bytes, batch.message().size(), batch.checksum());
    ASSERT_FALSE(parsed) << i;
    EXPECT_EQ(parsed.error().code(), Code::kCorrupt);
  }
}

// As somebody would who can compute checksums: whatever is accepted must be safe to read.
TEST(Batch, EveryFlippedBitUnderAGoodChecksumIsRefusedOrReadable) {
  Batch batch = test::make_batch(kOriginA, 3, 200);
  size_t accepted = 0, refused = 0;
  for (size_t bit = 0; bit < batch.encoded_bytes() * 8; ++bit) {
    auto bytes = bytes_of(batch);
    (*bytes)[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    auto parsed = parse_with_good_checksum(bytes, batch.message().size());
    ++(parsed ? accepted : refused);
    if (parsed) {
      EXPECT_FALSE(show(*parsed).empty());
    }
  }
  EXPECT_GT(accepted, 0u);
  EXPECT_GT(refused, 0u);
}

TEST(Batch, EveryCutIsRefused) {
  Batch batch = test::make_batch(kOriginA, 3);
  for (size_t n = 0; n < batch.encoded_bytes(); ++n) {
    auto bytes = bytes_of(batch);
    bytes->resize(n);
    EXPECT_FALSE(parse_with_good_checksum(bytes, std::min(n, batch.message().size()))) << n;
  }
}

RC_GTEST_PROP(Batch, RandomBytesAreRefusedOrReadable, ()) {
  auto words = *rc::gen::container<std::vector<uint64_t>>(rc::gen::oneOf(
      rc::gen::arbitrary<uint64_t>(), rc::gen::inRange<uint64_t>(0, 64), rc::gen::just(uint64_t{0})));
  auto bytes = std::make_shared<Bytes>();
  append_value(*bytes, uint32_t{0});
  append_value(*bytes, static_cast<uint32_t>(words.size()));
  for (uint64_t word : words) append_value(*bytes, word);
  auto parsed = parse_with_good_checksum(bytes, bytes->size());
  if (parsed) show(*parsed);
}

template <class Fill>
Result<Batch> parse_crafted(Fill fill, Bytes body = {}) {
  capnp::MallocMessageBuilder builder;
  auto root = builder.initRoot<schema::Batch>();
  root.initOrigin().setLo(1);
  root.setLsn(1);
  fill(root);
  auto words = capnp::messageToFlatArray(builder);
  auto bytes = std::make_shared<Bytes>();
  append_bytes(*bytes, std::as_bytes(std::span(words.asBytes().begin(), words.asBytes().size())));
  size_t message_bytes = bytes->size();
  append_bytes(*bytes, body);
  return parse_with_good_checksum(bytes, message_bytes);
}

TEST(Batch, KindsThisVersionCannotReadAreNamed) {
  auto put_inode = parse_crafted([](auto batch) { batch.initOperations(1)[0].initPutInode().setInode(4); });
  ASSERT_FALSE(put_inode);
  EXPECT_EQ(put_inode.error().code(), Code::kUnsupported);
  EXPECT_NE(put_inode.error().message().find("putInode"), std::string::npos);
  auto compacted = parse_crafted([](auto batch) { batch.setKind(schema::Batch::Kind::COMPACTED); });
  ASSERT_FALSE(compacted);
  EXPECT_EQ(compacted.error().code(), Code::kUnsupported);
  auto unknown = parse_crafted([](auto batch) { batch.setKind(static_cast<schema::Batch::Kind>(9)); });
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), Code::kUnsupported);
}

TEST(Batch, WhatNoTreeCouldTakeIsRefused) {
  using Root = schema::Batch::Builder;
  auto name = [](std::string_view text) {
    return capnp::Data::Reader(reinterpret_cast<const kj::byte*>(text.data()), text.size());
  };
  auto link = [&](Root batch, uint64_t parent, std::string_view text, uint64_t inode) {
    auto o = batch.initOperations(1)[0].initLink();
    o.setParent(parent);
    o.setName(name(text));
    o.setInode(inode);
  };
  auto write = [](Root batch, uint32_t index, uint32_t offset, uint32_t length) {
    auto o = batch.getOperations()[index].initWrite();
    o.setInode(2);
    o.setBytesOffset(offset);
    o.setBytesLength(length);
  };
  struct Case {
    const char* what;
    std::function<void(Root)> fill;
    bool good = false;
  } cases[] = {
      {"a good link", [&](Root b) { link(b, 1, "name", 2); }, true},
      {"no name", [&](Root b) { link(b, 1, "", 2); }},
      {"a dot", [&](Root b) { link(b, 1, ".", 2); }},
      {"two dots", [&](Root b) { link(b, 1, "..", 2); }},
      {"a slash", [&](Root b) { link(b, 1, "a/b", 2); }},
      {"a NUL", [&](Root b) { link(b, 1, std::string_view("a\0b", 3), 2); }},
      {"255 bytes", [&](Root b) { link(b, 1, std::string(255, 'n'), 2); }, true},
      {"256 bytes", [&](Root b) { link(b, 1, std::string(256, 'n'), 2); }},
      {"parent 0", [&](Root b) { link(b, 0, "name", 2); }},
      {"inode 0", [&](Root b) { link(b, 1, "name", 0); }},
      {"nanoseconds",
       [&](Root b) {
         link(b, 1, "name", 2);
         b.getOperations()[0].initTime().setNsec(1'000'000'000);
       }},
      {"a range change of 5",
       [&](Root b) {
         auto o = b.initOperations(1)[0].initAllocate();
         o.setInode(2);
         o.setChange(static_cast<schema::Operation::RangeChange>(5));
       }},
      {"a file type of none",
       [&](Root b) {
         auto o = b.initOperations(1)[0].initCreate();
         o.setParent(1);
         o.setName(name("n"));
         o.setInode(2);
         o.setMode(0644);
       }},
      {"prefix 0", [&](Root b) { b.initOperations(1)[0].initClaimPrefix().setPrefix(0); }},
      {"prefix of 41 bits",
       [&](Root b) { b.initOperations(1)[0].initClaimPrefix().setPrefix(uint64_t{1} << 40); }},
      {"bytes within the body",
       [&](Root b) {
         b.initOperations(1);
         write(b, 0, 8, 8);
       },
       true},
      {"bytes past the body",
       [&](Root b) {
         b.initOperations(1);
         write(b, 0, 8, 9);
       }},
      {"bytes that wrap around",
       [&](Root b) {
         b.initOperations(1);
         write(b, 0, UINT32_MAX, 8);
       }},
      {"bytes used twice",
       [&](Root b) {
         b.initOperations(2);
         write(b, 0, 0, 16);
         write(b, 1, 8, 8);
       }},
      {"LSN 0", [&](Root b) { b.setLsn(0); }},
      {"no origin", [&](Root b) { b.initOrigin(); }},
      {"a label of 256 bytes", [&](Root b) { b.initLabel(256); }},
      {"a dependency on itself",
       [&](Root b) {
         auto d = b.initDependencies(1)[0];
         d.initOrigin().setLo(1);
         d.setLsn(4);
       }},
      {"a start at LSN 2",
       [&](Root b) {
         b.setLsn(2);
         b.setKind(schema::Batch::Kind::ORIGIN_START);
       }},
  };
  for (const Case& c : cases) {
    auto parsed = parse_crafted(c.fill, Bytes(16));
    EXPECT_EQ(parsed.has_value(), c.good) << c.what << (parsed ? "" : ": " + parsed.error().message());
    if (!parsed) {
      EXPECT_EQ(parsed.error().code(), Code::kCorrupt) << c.what;
    }
  }
}

// Else a small message could stand for endless reading.
TEST(Batch, ManyPointersToOneTextAreRefused) {
  constexpr size_t kLong = 4000;
  BatchBuilder builder;
  for (uint64_t i = 0; i < 200; ++i) {
    std::string target(i == 0 ? kLong : 1, 't');
    builder.add(fs::Create{
        .parent = kRootInode, .name = "name", .inode = {2 + i}, .mode = S_IFLNK | 0777, .target = target});
  }
  Batch built = builder.finish({.origin = kOriginA, .lsn = 1});
  auto bytes = bytes_of(built);
  ASSERT_TRUE(parse_with_good_checksum(std::make_shared<Bytes>(*bytes), bytes->size()));

  // Words that are pointers to lists of so many bytes; the offset counts from the word after.
  auto word = [&](size_t i) { return load_value<uint64_t>(bytes->data() + i * 8); };
  auto points_to = [&](size_t i, uint64_t length) {
    return (word(i) & 3) == 1 && word(i) >> 32 == (length << 3 | 2);
  };
  size_t text = 0, changed = 0;
  for (size_t i = 1; i < bytes->size() / 8; ++i) {
    if (points_to(i, kLong)) text = i + 1 + ((word(i) & UINT32_MAX) >> 2);
    if (text == 0 || !points_to(i, 1)) continue;
    auto offset = static_cast<uint32_t>(static_cast<int32_t>(text) - static_cast<int32_t>(i + 1)) << 2;
    store_value(bytes->data() + i * 8, uint64_t{kLong} << 35 | uint64_t{2} << 32 | offset | 1);
    ++changed;
  }
  ASSERT_EQ(changed, 199u);
  auto parsed = parse_with_good_checksum(bytes, bytes->size());
  ASSERT_FALSE(parsed);
  EXPECT_NE(parsed.error().message().find("traversal limit"), std::string::npos) << parsed.error().message();
}

TEST(Batch, SizesPastTheLimitsAreRefusedUnread) {
  auto bytes = std::make_shared<Bytes>(kBatchMessageLimit + 8);
  auto parsed = Batch::parse(bytes, bytes->size(), 0);
  ASSERT_FALSE(parsed);
  EXPECT_NE(parsed.error().message().find("at most"), std::string::npos);
}

}  // namespace
}  // namespace reprise::journal
