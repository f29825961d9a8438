#include "instance/flush.h"

#include <fmt/format.h>

#include <algorithm>

namespace reprise::instance {
namespace {

using replay::PeerStatus;

bool is_there(const PeerStatus& peer) {
  return peer.connected && peer.greeted;
}

bool has(const PeerStatus& peer, const FlushRequest& request, const journal::Vector& wanted) {
  return is_there(peer) && peer.acked.covers(wanted) && (!request.synced || peer.synced.covers(wanted));
}

// The last session of a peer that is not there ended for good: why.
const PeerStatus* gone_for_good(const std::string& name, const std::vector<PeerStatus>& peers) {
  const PeerStatus* last = nullptr;
  for (const PeerStatus& peer : peers)
    if (peer.name == name && (last == nullptr || peer.connected_since >= last->connected_since)) last = &peer;
  return last != nullptr && !last->connected && last->detached ? last : nullptr;
}

}  // namespace

Result<FlushRequest> FlushRequest::of(const Json& question, const std::vector<PeerStatus>& peers) {
  FlushRequest request;
  auto yes = question.find("synced");
  request.synced = yes != question.end() && yes->is_boolean() && yes->get<bool>();
  if (auto count = question.find("count"); count != question.end()) {
    if (!count->is_number_unsigned() || count->get<uint64_t>() == 0)
      return fail(Code::kInvalidArgument, "flush: expected a number of peers, at least 1");
    request.count = count->get<uint64_t>();
    return request;
  }
  if (auto names = question.find("names"); names != question.end()) {
    if (!names->is_array() || names->empty())
      return fail(Code::kInvalidArgument, "flush: expected names of peers, found none");
    for (const Json& name : *names) {
      if (!name.is_string()) return fail(Code::kInvalidArgument, "flush: expected names of peers");
      ++request.names[name.get<std::string>()];
    }
    return request;
  }
  for (const PeerStatus& peer : peers)
    if (is_there(peer)) ++request.names[peer.name];
  if (request.names.empty()) return fail(Code::kNotFound, "no peer is connected that could have it");
  return request;
}

Result<FlushState> look_at_flush(const FlushRequest& request, const std::vector<PeerStatus>& peers,
                                 const journal::Vector& wanted) {
  FlushState state;
  std::map<std::string, uint64_t> have, there;
  uint64_t all_there = 0;
  for (const PeerStatus& peer : peers) {
    if (is_there(peer)) ++there[peer.name], ++all_there;
    if (!has(peer, request, wanted)) continue;
    ++have[peer.name];
    state.peers.push_back(peer.name);
  }
  const char* doing = request.synced ? "have it on the disk" : "have applied it";
  if (request.count != 0) {
    if (state.peers.size() < request.count)
      state.missing = fmt::format("expected peers that {}: {}, found {}; connected: {}", doing, request.count,
                                  state.peers.size(), all_there);
    return state;
  }
  std::erase_if(state.peers, [&](const std::string& name) { return !request.names.contains(name); });
  for (const auto& [name, expected] : request.names) {
    if (have[name] >= expected) continue;
    if (const PeerStatus* gone = gone_for_good(name, peers); gone != nullptr && there[name] < expected) {
      return fail(Code::kDetached,
                  fmt::format("the peer {} has gone for good: {}", printable(name), gone->ended));
    }
    const char* how = there[name] < expected ? "is not connected"
                      : request.synced       ? "does not have it on the disk"
                                             : "has not applied it";
    state.missing += fmt::format("{}{} {}", state.missing.empty() ? "" : ", ", printable(name), how);
  }
  return state;
}

}  // namespace reprise::instance
