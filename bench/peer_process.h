// PeerProcess: another process with a follower in it, told what to do over a pipe; so that what is measured
// crosses a process boundary, as it does in use. Made before the measuring process has threads.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "base/ids.h"
#include "replay/tier.h"

namespace reprise::bench {

class PeerProcess {
 public:
  // The follower will connect to this Unix socket. Everything is kept in memory.
  static std::unique_ptr<PeerProcess> fork(const std::string& socket);
  ~PeerProcess();

  // Forgets everything it had.
  void start_anew();
  struct CaughtUp {
    uint64_t received_bytes = 0;
    replay::Tier tier = replay::Tier::kNothing;
    uint64_t estimated_snapshot_bytes = 0;  // when it was decided how
  };
  // Connects and returns when the peer has what the leader had at that moment, all bytes readable. Stays
  // connected.
  CaughtUp catch_up();
  // Its own journal is dropped, too, so that what it was sent does not add up.
  void disconnect();
  // Says from its next connection on which blobs it has already, or again does not.
  void offer_tree(bool offers);
  // It does nothing until it is woken: its connection stays, and is not read.
  void stall();
  void wake();
  // Of its tree, recomputed from the bytes.
  Digest128 digest();

 private:
  PeerProcess(pid_t pid, int to, int from) : pid_(pid), to_(to), from_(from) {}
  void ask(char command, void* answer, size_t bytes);

  pid_t pid_;
  int to_, from_;
};

}  // namespace reprise::bench
