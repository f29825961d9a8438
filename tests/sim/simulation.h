// A simulation: some machines, one leads, the others follow it or each other; guests work, and everything
// that can go wrong does. One thread, one seed: the same seed and the same sources make the same run.
//
// What must hold, and is looked at all the time:
//   - two instances at one vector have the same tree, counted again from its bytes;
//   - what an instance said was on its disk is there after whatever befell the machine;
//   - an instance that is overwritten keeps what it alone had;
//   - who is not overwritten never goes back; nobody finds a difference of digests unless bytes were damaged
//   on the way;
//   - a link hands out no more at once than it says, and waits when nobody takes it;
//   - when all is well again everybody comes to the leader's position within a stated time.
#pragma once

#include <fmt/format.h>

#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/sim/machine.h"
#include "tests/sim/network.h"

namespace reprise::sim {

struct Plan {
  uint64_t seed = 1;
  size_t rounds = 4;  // of trouble, each with a healing at its end
  size_t steps_per_round = 400;
};

struct Outcome {
  std::optional<std::string> failure;  // what did not hold, and what went before
  uint64_t trace = 0;                  // a hash of all that happened
  uint64_t calls = 0;                  // of guests, that changed something
  uint64_t simulated_ms = 0;
  // How often what befell somebody.
  std::map<std::string, uint64_t> events;
};

class Simulation {
 public:
  explicit Simulation(const Plan& plan);
  Outcome run();

 private:
  // What the operator wants of a machine.
  struct Post {
    std::unique_ptr<Machine> machine;
    std::optional<size_t> follows;       // nobody: it leads
    uint64_t down_until_ns = 0;          // not started before
    uint64_t stands_still_until_ns = 0;  // as by SIGSTOP
    uint64_t retry_at_ns = 0, retry_ms = 10;
    std::unique_ptr<replay::ResyncBudget> budget;
    std::unique_ptr<replay::UnfinishedTree> unfinished;  // of the program that runs
    bool detached = false;
    uint64_t writes_from_ns = 0;  // a leader waits for its followers after an unclean end
    bool disk_failed = false;     // it was told to fail
  };

  void trouble();
  void heal();
  void step(bool calm);
  void befall();
  void pass_ms(uint64_t ms, bool calm);

  // Guests and operators.
  void work();
  void one_call(fs::Guest& guest);
  // A branch is forked, worked on beside the leader's own guests, and joined or discarded.
  void try_on_a_branch(Machine& machine);
  void join(Machine& machine, const std::string& branch, const Digest128& its_tree);
  void reset_to_the_past(Machine& machine);
  void housekeeping(Post& post);
  void crash(size_t index, bool power);
  void close_cleanly(size_t index);
  void start(Post& post);
  void promote_somebody();
  void follow_another();
  void leave_and_join();
  void after_action(size_t index);  // did the program die in it?

  // The network.
  void connect(Post& post);
  void pump(Connection& connection);
  void pump_leader(Connection& connection);
  void pump_follower(Connection& connection);
  void send(Connection& connection, bool down, Bytes bytes);
  void drop_ends_of(size_t index, bool says_so);
  void drop_follower_end(Post& post);
  Path& path(size_t a, size_t b) { return paths_[{std::min(a, b), std::max(a, b)}]; }

  // What must hold.
  void look_at(Machine& machine);
  void check_converged();
  bool all_in_step();
  void check(bool holds, const std::string& what);
  template <class... Values>
  void note(const std::string& what, Values... values) {
    std::string line = what;
    ((line += fmt::format(" {}", values)), ...);
    note_line(what, line);
  }
  void note_line(const std::string& what, const std::string& line);
  std::string state();

  bool likely(uint64_t percent) { return chance_() % 100 < percent; }
  uint64_t pick(uint64_t n) { return chance_() % n; }
  bool runs(const Post& post) const {
    return post.machine->up() && world_.now_ns >= post.stands_still_until_ns;
  }

  const Plan plan_;
  std::mt19937_64 chance_;
  World world_;
  replay::SessionOptions session_;
  std::unique_ptr<SeededRandom> session_random_;
  std::vector<Post> posts_;
  size_t leader_ = 0;
  uint64_t tries_ = 0;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::map<std::pair<size_t, size_t>, Path> paths_;
  // What the leader's tree had in it, after which batch.
  struct Past {
    size_t machine = 0;
    uint64_t starts = 0;
    std::vector<std::pair<LogIndex, Digest128>> contents;
  } past_;
  std::map<Bytes, Digest128> states_;  // the tree at each vector that was seen
  bool damaged_ = false;               // bytes were, on their way, in this round
  bool marks_may_differ_ = false;      // for what has happened in this run
  uint64_t next_connection_ = 1, marks_ = 0;
  Outcome outcome_;
  std::vector<std::string> recent_;
};

}  // namespace reprise::sim
