#include "replay/authentication.h"

#include "base/check.h"

namespace reprise::replay {
namespace {

// What the keyed hash of an end begins with; so neither can be answered with its own.
constexpr std::string_view kLeaderProof = "reprise session 0: leader\n";
constexpr std::string_view kFollowerProof = "reprise session 0: follower\n";

}  // namespace

Authentication::Authentication(Role role, Token token, Random& random)
    : role_(role), token_(std::move(token)), passed_(token_ == nullptr) {
  CHECK(role == Role::kLeader || role == Role::kFollower);
  if (passed_) return;
  for (size_t at = 0; at < ours_.nonce.size(); at += sizeof(uint64_t))
    store_value(ours_.nonce.data() + at, random.next());
}

std::optional<Control> Authentication::begin() const {
  if (passed_ || role_ == Role::kLeader) return std::nullopt;
  return ours_;
}

Result<std::optional<Control>> Authentication::answer(const Control& control) {
  CHECK(!passed_);
  if (const auto* challenge = std::get_if<Challenge>(&control); challenge != nullptr && !theirs_) {
    theirs_ = *challenge;
    if (role_ == Role::kLeader) return ours_;
    return Proof{.mac = proof_of(Role::kFollower)};
  }
  if (const auto* proof = std::get_if<Proof>(&control); proof != nullptr && theirs_) {
    Role theirs = role_ == Role::kLeader ? Role::kFollower : Role::kLeader;
    if (!same_secret(proof->mac, proof_of(theirs)))
      return fail(Code::kUnauthorised, "the tokens are not the same");
    passed_ = true;
    if (role_ == Role::kLeader) return Proof{.mac = proof_of(Role::kLeader)};
    return std::nullopt;
  }
  if (std::holds_alternative<Hello>(control))
    return fail(Code::kUnauthorised, "a token is asked for here, and the other end has none");
  return fail(Code::kCorrupt, "expected the other end to prove first that it knows the token");
}

Mac Authentication::proof_of(Role role) const {
  const bool leader = role_ == Role::kLeader;
  Bytes message;
  append_bytes(message, as_bytes(role == Role::kLeader ? kLeaderProof : kFollowerProof));
  append_bytes(message, leader ? theirs_->nonce : ours_.nonce);  // the follower's
  append_bytes(message, leader ? ours_.nonce : theirs_->nonce);
  return hmac_sha256(as_bytes(*token_), message);
}

}  // namespace reprise::replay
