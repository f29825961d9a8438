// Marks: when one has been passed, what it takes along, and what becomes of it when what it named is lost.
#include "instance/marks.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <thread>

#include "instance/history.h"
#include "tests/instance/instance_fixture.h"

namespace reprise::instance {
namespace {

// What an adapter does in apply_remotely, reduced to asking: has the mark been passed at its end?
class AsksForAMark : public CoherenceHook {
 public:
  AsksForAMark(Instance& instance, std::string mark) : instance_(instance), mark_(std::move(mark)) {}
  Status apply_remotely(std::span<const fs::Operation>, const std::function<Status()>& apply) override {
    Status status = apply();
    answers_.push_back(instance_.wait_for_mark(mark_, 0) ? "passed" : "not yet");
    return status;
  }
  Status replace_all(const std::function<Result<fs::View>()>& install, const fs::View*) override {
    TRY(install());
    return {};
  }
  std::vector<std::string> answers_;

 private:
  Instance& instance_;
  std::string mark_;
};

TEST_F(InstanceTest, AMarkIsPassedWhenCachesHaveDroppedWhatIsOlder) {
  auto leader = open(create_store("a"));
  write(*leader, "/file", "old");
  write(*leader, "/file", "new");
  ASSERT_TRUE(leader->mark("here", "test"));
  auto opened = Instance::open_new_follower(path("b"), options(true));
  ASSERT_TRUE(opened) << opened.error().message();
  std::unique_ptr<Instance> follower = std::move(*opened);
  ASSERT_TRUE(follower->adopt_volume(leader->volume()));
  AsksForAMark hook(*follower, "here");
  follower->set_coherence_hook(&hook);
  auto all = batches(*leader);
  ASSERT_TRUE(follower->apply(all));
  EXPECT_EQ(hook.answers_, std::vector<std::string>{"not yet"});
  auto passed = follower->wait_for_mark("here", 0);
  ASSERT_TRUE(passed) << "once apply() is done";
  // What it had already is no mark at another place.
  ASSERT_TRUE(follower->apply(all));
  EXPECT_EQ(follower->wait_for_mark("here", 0)->log_index, passed->log_index);
  follower->set_coherence_hook(nullptr);
}

TEST_F(InstanceTest, AnOverwriteThatCannotBeKeptHasNotHappened) {
  auto leader = open(create_store("leader"));
  write(*leader, "/file", "text");
  ASSERT_TRUE(leader->mark("here", ""));
  auto pinned = leader->pin();
  auto marks = leader->marks();
  ASSERT_TRUE(pinned && marks);
  std::string in_the_way;
  {
    auto follower = Instance::open_new_follower(path("follower"), options(true));
    ASSERT_TRUE(follower);
    ASSERT_TRUE((*follower)->adopt_volume(leader->volume()));
    // The journal cannot begin anew.
    for (const auto& entry : std::filesystem::directory_iterator(path("follower") + "/branches/main/journal"))
      in_the_way = entry.path();
    size_t digits = in_the_way.rfind('1');
    in_the_way.replace(digits, 1, "2");
    in_the_way += ".new";
    std::filesystem::create_directory(in_the_way);
    auto done = (*follower)->install(pinned->view, pinned->moment.position, pinned->moment.lamport, *marks);
    ASSERT_FALSE(done) << "the test does not stop it where it should";
    EXPECT_TRUE((*follower)->is_new());
    EXPECT_NE(read(**follower, "/file"), "text");
    EXPECT_FALSE((*follower)->wait_for_mark("here", 0));
  }
  std::filesystem::remove(in_the_way);
  auto follower = open(open_store("follower"), true);
  EXPECT_TRUE(follower->is_new());
  EXPECT_FALSE(follower->wait_for_mark("here", 0));
  ASSERT_TRUE(follower->install(pinned->view, pinned->moment.position, pinned->moment.lamport, *marks));
  EXPECT_EQ(read(*follower, "/file"), "text");
  EXPECT_EQ(follower->settle()->position, leader->settle()->position);
  EXPECT_TRUE(follower->wait_for_mark("here", 0));
}

TEST_F(InstanceTest, AMarkThatACrashKeptFromTheCatalogueIsThereAfterIt) {
  auto leader = open(create_store("leader"));
  write(*leader, "/file", "text");
  auto mark = leader->mark("here", "");
  ASSERT_TRUE(mark);
  write(*leader, "/later", "text");
  ASSERT_TRUE(leader->sync());
  leader.reset();  // as a crash would
  std::shared_ptr<store::Store> store = open_store("leader");
  ASSERT_TRUE(store->catalogue().remove_mark("main", "here"));
  leader = open(store);
  auto found = leader->wait_for_mark("here", 0);
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(found->log_index, mark->log_index);
  EXPECT_EQ(found->token, mark->token);
}

TEST_F(InstanceTest, AMomentAfterAMarkKnowsTheMark) {
  auto leader = open(create_store("leader"));
  constexpr int kMarks = 50;
  std::thread marking([&] {
    for (int i = 0; i < kMarks; i++) EXPECT_TRUE(leader->mark(fmt::format("m{}", i), ""));
  });
  // What a snapshot is sent with: the tree of a moment, and then the marks.
  std::vector<std::pair<journal::Vector, size_t>> sent;
  while (sent.empty() || sent.back().second < kMarks) {
    auto pinned = leader->pin();
    auto marks = leader->marks();
    if (!pinned || !marks) break;
    sent.emplace_back(pinned->moment.position.vector, marks->size());
  }
  marking.join();
  auto marks = leader->marks();
  ASSERT_TRUE(marks);
  for (const auto& [vector, known] : sent) {
    auto later = std::find_if(marks->begin(), marks->end(), [&](const replay::Mark& mark) {
      return !vector.covers(journal::Position::parse_token(mark.token)->vector);
    });
    ASSERT_GE(known, static_cast<size_t>(later - marks->begin()));
  }
}

TEST_F(InstanceTest, AMarkIsOnTheDiskInEveryModeAndItsLossIsNoticed) {
  for (auto durability : {journal::Durability::kNone, journal::Durability::kFsync}) {
    std::string name = durability == journal::Durability::kNone ? "none" : "fsync";
    std::string segment = path(name) + "/branches/main/journal/0000000001.seg";
    InstanceOptions chosen = options();
    chosen.journal.durability = durability;
    uintmax_t before_second = 0;
    {
      auto instance = Instance::open(create_store(name), chosen);
      ASSERT_TRUE(instance) << instance.error().message();
      ASSERT_TRUE((*instance)->mark("first", ""));
      before_second = std::filesystem::file_size(segment);
      write(**instance, "/two", "2");
      ASSERT_TRUE((*instance)->mark("second", ""));
    }
    std::filesystem::resize_file(segment, before_second);
    auto again = Instance::open(open_store(name), chosen);
    ASSERT_FALSE(again) << "what a mark named was lost, and nobody noticed";
    EXPECT_EQ(again.error().code(), Code::kCorrupt);
  }
}

TEST_F(InstanceTest, MarksOfWhatWasLostAreDropped) {
  auto store = create_store("s");
  auto instance = open(store);
  LogIndex first = instance->mark("first", "")->log_index;
  ASSERT_TRUE(instance->mark("second", ""));
  EXPECT_EQ(*drop_marks_after(*store, "other", 0), std::vector<std::string>{});
  EXPECT_EQ(*drop_marks_after(*store, "main", first), std::vector<std::string>{"second"});
  EXPECT_TRUE(store->catalogue().mark("main", "first")->has_value());
  EXPECT_FALSE(store->catalogue().mark("main", "second")->has_value());
}

TEST_F(InstanceTest, AMarkThatIsNotWhereTheCatalogueSaysIsFound) {
  auto store = create_store("s");
  {
    auto instance = open(store);
    ASSERT_TRUE(instance->mark("first", ""));
    write(*instance, "/file", "text");
    ASSERT_TRUE(instance->mark("second", ""));
    ASSERT_TRUE(instance->close());
  }
  auto directory = *store->journal_directory("main");
  auto report = *journal::verify_journal(*directory, {store->volume(), "main"}, 0);
  EXPECT_EQ(*check_marks(*store, "main", report), std::vector<std::string>{});
  auto mark = **store->catalogue().mark("main", "second");
  for (LogIndex index : {mark.log_index - 1, report.last + 1}) {
    store::MarkRecord misplaced = mark;
    misplaced.log_index = index;
    ASSERT_TRUE(store->catalogue().put_mark(misplaced));
    auto wrong = *check_marks(*store, "main", report);
    ASSERT_EQ(wrong.size(), 1u) << index;
    EXPECT_NE(wrong[0].find("second at log index " + std::to_string(index)), std::string::npos) << wrong[0];
  }
  // One that was trimmed away, or came with a snapshot, cannot be looked at.
  mark.log_index = 0;
  ASSERT_TRUE(store->catalogue().put_mark(mark));
  EXPECT_EQ(*check_marks(*store, "main", report), std::vector<std::string>{});
}

TEST_F(InstanceTest, MarksArePositionsThatCanBeReadAgain) {
  auto store = create_store("s");
  auto instance = open(store);
  write(*instance, "/file", "before");
  auto mark = instance->mark("release-1", "");
  ASSERT_TRUE(mark) << mark.error().message();
  write(*instance, "/file", "after");
  ASSERT_TRUE(instance->sync());

  for (std::string position : {std::string("release-1"), mark->token, std::to_string(mark->log_index)}) {
    auto until = resolve_position(*store, "main", position, system_clock());
    ASSERT_TRUE(until) << until.error().message();
    EXPECT_EQ(*until, std::optional(mark->log_index)) << position;
    auto state = state_at(*store, "main", *until);
    ASSERT_TRUE(state) << state.error().message();
    auto token = token_of(*store, "main", *state);
    ASSERT_TRUE(token);
    EXPECT_EQ(*token, mark->token);
    auto file = state->head.lookup(kRootInode, "file");
    ASSERT_TRUE(file);
    EXPECT_EQ(state->head.stat(file->inode)->size, std::string_view("before").size());
  }
  EXPECT_EQ(resolve_position(*store, "main", "release-2", system_clock()).error().code(), Code::kNotFound);
  EXPECT_EQ(resolve_position(*store, "main", "{ten}", system_clock()).error().code(), Code::kInvalidArgument);
  auto head = state_at(*store, "main", std::nullopt);
  ASSERT_TRUE(head);
  EXPECT_EQ(head->position, instance->settle()->position);
}

TEST_F(InstanceTest, MarksWorkAfterVeryManySessions) {
  auto store = create_store("s");
  for (int i = 0; i < 300; i++) {
    auto instance = open(store);
    write(*instance, "/file", "text");
    ASSERT_TRUE(instance->close());
  }
  auto instance = open(store);
  auto mark = instance->mark("late", "");
  ASSERT_TRUE(mark) << mark.error().message();
  EXPECT_LT(mark->token.size(), 100u) << "a token grows with the number of openings";
  auto resolved = resolve_position(*store, "main", mark->token, system_clock());
  ASSERT_TRUE(resolved) << resolved.error().message();
  EXPECT_EQ(*resolved, std::optional(mark->log_index));
  // After it has been trimmed away it is found by the snapshot that is of that state.
  auto snapshot = instance->snapshot("");
  ASSERT_TRUE(snapshot && instance->trim());
  EXPECT_EQ(*resolve_position(*store, "main", mark->token, system_clock()),
            std::optional(snapshot->log_index));
  EXPECT_TRUE(instance->wait_for(journal::Position::parse_token(mark->token)->vector, 0));
}

}  // namespace
}  // namespace reprise::instance
