// Who has to have what before a flush is done.
#include "instance/flush.h"

#include <gtest/gtest.h>

namespace reprise::instance {
namespace {

using replay::PeerStatus;

journal::Vector at(Lsn lsn) {
  journal::Vector vector;
  vector.set({.hi = 1, .lo = 1}, lsn);
  return vector;
}

PeerStatus peer(const std::string& name, Lsn acked, Lsn synced = 0) {
  PeerStatus status;
  status.name = name;
  status.connected = status.greeted = true;
  status.acked = at(acked);
  if (synced != 0) status.synced = at(synced);
  status.connected_since = {.sec = 100};
  return status;
}
PeerStatus gone(const std::string& name, bool for_good, int64_t since = 100) {
  PeerStatus status = peer(name, 5);
  status.connected = false;
  status.detached = for_good;
  status.ended = "its disk is full";
  status.connected_since.sec = since;
  return status;
}

// What is missing at LSN 5; "" if nothing, the error if it is one.
std::string missing(const Json& question, const std::vector<PeerStatus>& before,
                    const std::vector<PeerStatus>& now) {
  auto request = FlushRequest::of(question, before);
  if (!request) return "refused: " + request.error().message();
  auto state = look_at_flush(*request, now, at(5));
  return state ? state->missing : "failed: " + state.error().message();
}
std::string missing(const Json& question, const std::vector<PeerStatus>& peers) {
  return missing(question, peers, peers);
}

TEST(Flush, WaitsForAllThatAreConnected) {
  EXPECT_EQ(missing(Json::object(), {peer("a", 5), peer("b", 6)}), "");
  EXPECT_EQ(missing(Json::object(), {peer("a", 5), peer("b", 4)}), "b has not applied it");
  EXPECT_EQ(missing(Json::object(), {peer("a", 5), gone("b", false)}), "");
  EXPECT_NE(missing(Json::object(), {}).find("no peer is connected"), std::string::npos);
  EXPECT_NE(missing(Json::object(), {gone("b", false)}).find("no peer is connected"), std::string::npos);
  PeerStatus stranger = peer("", 5);
  stranger.greeted = false;
  EXPECT_NE(missing(Json::object(), {stranger}).find("no peer is connected"), std::string::npos);
}

TEST(Flush, OneThatGoesMeanwhileIsWaitedForUnlessItIsForGood) {
  std::vector<PeerStatus> before{peer("a", 4), peer("b", 5)};
  EXPECT_EQ(missing(Json::object(), before, {peer("b", 5), gone("a", false)}), "a is not connected");
  EXPECT_EQ(missing(Json::object(), before, {peer("b", 5), gone("a", true)}),
            "failed: the peer a has gone for good: its disk is full");
  // It came back after that.
  EXPECT_EQ(missing(Json::object(), before, {peer("a", 5), peer("b", 5), gone("a", true, 50)}), "");
  EXPECT_EQ(missing(Json::object(), before, {peer("b", 5), gone("a", true, 50), gone("a", false, 60)}),
            "a is not connected");
}

TEST(Flush, WaitsForThoseNamed) {
  Json b = {{"names", {"b"}}};
  EXPECT_EQ(missing(b, {peer("a", 1), peer("b", 5)}), "");
  EXPECT_EQ(missing(b, {peer("a", 5), peer("b", 1)}), "b has not applied it");
  EXPECT_EQ(missing(b, {peer("a", 5)}), "b is not connected");
  Json twice = {{"names", {"b", "b"}}};
  EXPECT_EQ(missing(twice, {peer("b", 5)}), "b is not connected");
  EXPECT_EQ(missing(twice, {peer("b", 5), peer("b", 5)}), "");
  EXPECT_EQ(missing(twice, {peer("b", 5), peer("b", 4)}), "b has not applied it");
}

TEST(Flush, WaitsForSoMany) {
  Json two = {{"count", 2u}};
  EXPECT_EQ(missing(two, {peer("a", 5), peer("b", 4), peer("c", 5)}), "");
  EXPECT_NE(missing(two, {peer("a", 5), peer("b", 4), gone("c", false)})
                .find("expected peers that have applied it: 2, found 1"),
            std::string::npos);
}

TEST(Flush, SyncedMeansTheirDisks) {
  Json synced = {{"synced", true}};
  EXPECT_EQ(missing(synced, {peer("a", 5, 4)}), "a does not have it on the disk");
  EXPECT_EQ(missing(synced, {peer("a", 5, 5)}), "");
}

TEST(Flush, RefusesWhatIsNoQuestion) {
  for (const Json& wrong : {Json{{"count", 0u}}, Json{{"count", "2"}}, Json{{"count", -1}},
                            Json{{"names", Json::array()}}, Json{{"names", {1}}}, Json{{"names", "b"}}}) {
    auto request = FlushRequest::of(wrong, {peer("a", 5)});
    ASSERT_FALSE(request) << wrong.dump();
    EXPECT_EQ(request.error().code(), Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace reprise::instance
