#include "replay/claims.h"

#include <algorithm>

namespace reprise::replay {

void Claims::begin_stream(const journal::BatchHeader& first) {
  if (streams_.size() >= kRememberedMax) return;
  bool lists = std::ranges::any_of(first.dependencies, [&](const journal::Vector::Entry& entry) {
    return entry.first != first.previous_origin;
  });
  streams_.insert_or_assign(first.origin, Beginning{first.previous_origin, lists});
}

bool Claims::knows(OriginId one, OriginId other) const {
  // As many steps as there are streams: what comes from a peer may lead round in a circle.
  for (size_t steps = 0; one && steps <= streams_.size(); ++steps) {
    if (one == other) return true;
    auto stream = streams_.find(one);
    if (stream == streams_.end()) return streams_.size() >= kRememberedMax;
    if (stream->second.knows_all) return true;
    one = stream->second.previous;
  }
  return false;
}

std::optional<OriginId> Claims::refused(uint64_t prefix, const journal::BatchHeader& by) const {
  auto claim = claimed_.find(prefix);
  if (claim == claimed_.end() || knows(by.origin, claim->second)) return std::nullopt;
  return claim->second;
}

void Claims::note(uint64_t prefix, OriginId by) {
  if (claimed_.size() < kRememberedMax || claimed_.contains(prefix)) claimed_.insert_or_assign(prefix, by);
}

}  // namespace reprise::replay
