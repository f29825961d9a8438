// Flush: have the peers of an instance what was written so far? Pure: from what is asked and what a leader
// knows of its peers to the answer. Host does the waiting, and `reprise flush` the asking.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "instance/control.h"
#include "journal/position.h"
#include "replay/leader_link.h"

namespace reprise::instance {

struct FlushRequest {
  uint64_t count = 0;                     // so many peers, whichever; 0: those named
  std::map<std::string, uint64_t> names;  // how many of each name
  bool synced = false;                    // on their disks

  // {"count": N} or {"names": […]}, {"synced": true}; without either all that are connected. kNotFound if
  // nobody is, kInvalidArgument.
  static Result<FlushRequest> of(const Json& question, const std::vector<replay::PeerStatus>& peers);
};

struct FlushState {
  std::vector<std::string> peers;  // that have it
  std::string missing;             // in words, what is not there yet; empty: done
};

// kDetached as soon as a peer that is asked for has gone for good.
Result<FlushState> look_at_flush(const FlushRequest& request, const std::vector<replay::PeerStatus>& peers,
                                 const journal::Vector& wanted);

}  // namespace reprise::instance
