// Random calls on guests of one filesystem: they agree with a plain model, and the laws of the tree hold
// after each.
#include "tests/fs/model.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace reprise::fs {
namespace {

struct Kept {
  View view;
  Digest128 digest;
};

void expect_unchanged(const std::vector<Kept>& kept) {
  for (const Kept& old : kept) {
    RC_ASSERT(old.view.recompute_digest() == old.digest);
    RC_ASSERT(old.view.digest() == old.digest);
    RC_ASSERT(old.view.check_invariants() == "");
  }
}

// Above a removed directory that was in a removed directory there is nothing; the model still has it.
bool removes_twice(const Call& call) {
  return call.kind == Kind::kRmdir && call.path == "../../n";
}

RC_GTEST_PROP(Model, GuestsAgreeWithItAndTheLawsHold, ()) {
  ModelCallee model;
  GuestCallee guest({{0, 0, {}}}, true);
  std::vector<Kept> kept;
  auto calls = *gen_calls({});
  for (const Call& call : calls) {
    if (removes_twice(call)) continue;
    std::string expected = model.perform(call), got = guest.perform(call);
    if (got != expected) RC_LOG() << call << "\nmodel: " << expected << "\nguest: " << got << "\n";
    RC_ASSERT(got == expected);
    RC_ASSERT(guest.world.broken_law() == "");
    if (call.mode == 0755) kept.push_back({guest.world.filesystem.view(), guest.world.filesystem.digest()});
  }
  RC_ASSERT(guest.tree() == model.tree());
  RC_ASSERT(guest.world.replayed().digest() == guest.world.filesystem.digest());
  expect_unchanged(kept);
}

RC_GTEST_PROP(Model, AForkAndItsOriginGoTheirOwnWays, ()) {
  GuestCallee guest({{0, 0, {}}}, true);
  auto before = *gen_calls({});
  auto after = *gen_calls({});
  for (const Call& call : before) guest.perform(call);
  Recorded fork;
  View at_fork = guest.world.filesystem.view();
  Digest128 digest_at_fork = guest.world.filesystem.digest();
  fork.filesystem.install(at_fork);
  for (const Call& call : after) guest.perform(call);
  RC_ASSERT(fork.filesystem.digest() == digest_at_fork);
  Digest128 digest_of_origin = guest.world.filesystem.digest();
  fork.filesystem.replay([&](Head& head) {
    for (uint64_t i = 0; i < 20; ++i) {
      std::string name = "forked" + std::to_string(i);
      RC_ASSERT(head.apply(Create{.parent = kRootInode,
                                  .name = name,
                                  .inode = InodeId::make(7, static_cast<uint32_t>(i + 1)),
                                  .mode = S_IFREG | 0644})
                    .has_value());
    }
  });
  RC_ASSERT(guest.world.filesystem.digest() == digest_of_origin);
  RC_ASSERT(guest.world.broken_law() == "");
  RC_ASSERT(fork.broken_law() == "");
  RC_ASSERT(fork.filesystem.digest() != digest_at_fork);
  RC_ASSERT(at_fork.recompute_digest() == digest_at_fork);
}

}  // namespace
}  // namespace reprise::fs
