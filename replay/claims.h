// Claims: which origin has claimed which prefix of inode ids, in the batches that a Replayer has applied.
//
// Two writers that knew nothing of each other and drew the same prefix would name two inodes with one id:
// what they wrote is never merged. Whoever knew of a claim may repeat it: so an interrupted join is finished
// by the next origin. Who knew whom is told by the first batch of each stream, which names the stream before.
//
// It knows what it was told, not what lies before the snapshot that a tree began with; and it remembers
// kRememberedMax claims and streams, after which it lets pass what it cannot tell. Values only; one
// thread at a time.
#pragma once

#include <optional>
#include <unordered_map>

#include "base/ids.h"
#include "journal/batch.h"

namespace reprise::replay {

class Claims {
 public:
  static constexpr size_t kRememberedMax = 65'536;

  // Before any claim of that stream: its first batch is about to be applied.
  void begin_stream(const journal::BatchHeader& first);
  // May this batch claim the prefix? If not, the origin that has it.
  std::optional<OriginId> refused(uint64_t prefix, const journal::BatchHeader& by) const;
  void note(uint64_t prefix, OriginId by);

 private:
  struct Beginning {
    OriginId previous;       // none: that of a volume's first writer
    bool knows_all = false;  // it lists what it had, as behind a snapshot
  };

  bool knows(OriginId one, OriginId other) const;

  std::unordered_map<uint64_t, OriginId> claimed_;
  std::unordered_map<OriginId, Beginning> streams_;
};

}  // namespace reprise::replay
