// Authentication: before a session's greeting, both ends show each other that they know the same token, which
// itself never goes over the wire: each draws a challenge, and answers both with a keyed hash that says which
// end it is. The follower proves itself first, so that a stranger who connects learns nothing he could try
// guesses on. docs/replication.md, "Who may connect".
//
// What it does not do: hide anything, or bind what comes later to who proved himself. Who can change the
// traffic on its way can take over a session that others have begun.
//
// Pure: messages in, messages out. Not thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "replay/wire.h"

namespace reprise::replay {

// What all instances of a volume know and nobody else; null: nothing is asked for.
using Token = std::shared_ptr<const std::string>;
// A frame before authentication is no larger than this.
inline constexpr size_t kStrangerLimit = 4096;

class Authentication {
 public:
  // role: ours, kLeader or kFollower.
  Authentication(Role role, Token token, Random& random);

  // The other end has proved itself, or need not.
  bool passed() const { return passed_; }
  // What a follower says first; a leader waits to be spoken to.
  std::optional<Control> begin() const;
  // The answer to a message that came before it had passed, if there is one. kUnauthorised: it is not who it
  // should be; kCorrupt: such a message has no place here.
  Result<std::optional<Control>> answer(const Control& control);

 private:
  Mac proof_of(Role role) const;

  Role role_;
  Token token_;
  bool passed_;
  Challenge ours_;
  std::optional<Challenge> theirs_;
};

}  // namespace reprise::replay
