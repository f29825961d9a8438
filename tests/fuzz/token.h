// What sessions of the seeds are authenticated with; the challenges are always the same.
#pragma once

#include "base/clock.h"
#include "replay/authentication.h"

namespace reprise::fuzz {

inline replay::Token token_of_seeds() {
  return std::make_shared<const std::string>("the token of the seeds");
}

class SameRandom final : public Random {
 public:
  uint64_t next() override { return ++last_; }

 private:
  uint64_t last_ = 0;
};

}  // namespace reprise::fuzz
