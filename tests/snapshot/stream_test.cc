#include "snapshot/stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "sample_tree.h"

namespace reprise::snapshot {
namespace {

struct Sent {
  std::vector<Bytes> pieces;
  Captured captured;
};

Sent send(const fs::Tree& tree, size_t piece_bytes = kPieceBytes) {
  Sent sent;
  auto captured = send_tree(tree, piece_bytes, [&](ByteView piece) -> Status {
    EXPECT_LE(piece.size(), piece_bytes);
    sent.pieces.emplace_back(piece.begin(), piece.end());
    return {};
  });
  EXPECT_TRUE(captured) << captured.error().message();
  sent.captured = captured.value_or(Captured{});
  return sent;
}

Result<fs::View> receive(const std::vector<Bytes>& pieces, BlobId root, const LoadLimits& limits = {}) {
  TreeReceiver receiver(limits);
  for (const Bytes& piece : pieces) TRY(receiver.add(piece));
  return receiver.finish(root);
}

TEST(TreeStream, ArrivesAsItWasSent) {
  TreeMaker tree;
  make_everything(tree);
  for (size_t piece_bytes : {kPieceBytes, size_t{1} << 20}) {
    Sent sent = send(tree.head, piece_bytes);
    EXPECT_GT(sent.pieces.size(), 2u);
    auto received = receive(sent.pieces, sent.captured.root);
    ASSERT_TRUE(received) << received.error().message();
    EXPECT_EQ(received->check_invariants(), "");
    EXPECT_EQ(received->digest(), tree.head.digest());
  }
}

TEST(TreeStream, BringsTheLimitsOfTheVolume) {
  TreeMaker tree;
  make_everything(tree);
  fs::SetLimits limits{.inodes = 5000, .depth = 40};
  ASSERT_TRUE(tree.head.apply(limits));
  Sent sent = send(tree.head);
  auto received = receive(sent.pieces, sent.captured.root);
  ASSERT_TRUE(received) << received.error().message();
  EXPECT_EQ(received->digest(), tree.head.digest());
  EXPECT_EQ(received->limits(), limits);
}

TEST(TreeStream, SendsEachBlobOnce) {
  TreeMaker tree;
  std::string bytes = random_bytes(1 << 20, 1);
  for (int i = 0; i < 40; i++) tree.file(kRootInode, std::to_string(i), bytes);
  Sent sent = send(tree.head);
  size_t total = 0;
  for (const Bytes& piece : sent.pieces) total += piece.size();
  EXPECT_LT(total, size_t{1100} << 10);
}

TEST(TreeStream, AFailingConnectionEndsIt) {
  TreeMaker tree;
  make_everything(tree);
  int calls = 0;
  auto sent = send_tree(tree.head, kPieceBytes, [&](ByteView) -> Status {
    if (++calls == 3) return fail(Code::kDetached, "gone");
    return {};
  });
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code(), Code::kDetached);
  EXPECT_EQ(calls, 3);
}

TEST(TreeStream, WhatIsMissingOrSpoiledIsNoticed) {
  TreeMaker tree;
  make_everything(tree);
  Sent sent = send(tree.head);
  for (size_t i = 0; i < sent.pieces.size(); i++) {
    auto some = sent.pieces;
    some.erase(some.begin() + static_cast<ptrdiff_t>(i));
    EXPECT_FALSE(receive(some, sent.captured.root));
    some = sent.pieces;
    some[i].pop_back();
    EXPECT_FALSE(receive(some, sent.captured.root));
  }
  EXPECT_FALSE(receive({}, sent.captured.root));
  EXPECT_FALSE(receive(sent.pieces, BlobId{1, 2}));
}

// Nothing short of the right hash gets in: every flip is refused, wherever it is.
TEST(TreeStream, FlippedBytesAreRefused) {
  TreeMaker tree;
  make_everything(tree);
  Sent sent = send(tree.head);
  std::mt19937_64 random(5);
  for (int round = 0; round < 300; round++) {
    Bytes& piece = sent.pieces[random() % sent.pieces.size()];
    std::byte& byte = piece[random() % piece.size()];
    auto flip = static_cast<std::byte>(1 << random() % 8);
    byte ^= flip;
    EXPECT_FALSE(receive(sent.pieces, sent.captured.root));
    byte ^= flip;
  }
  EXPECT_TRUE(receive(sent.pieces, sent.captured.root));
}

TEST(TreeStream, IsBoundedByTheReceiver) {
  TreeMaker tree;
  make_everything(tree);
  Sent sent = send(tree.head);
  auto received = receive(sent.pieces, sent.captured.root, {.memory_bytes = 1 << 20});
  ASSERT_FALSE(received);
  EXPECT_EQ(received.error().code(), Code::kNoSpace);
}

}  // namespace
}  // namespace reprise::snapshot
