// What guests and operators of the simulated machines do.
#include <fcntl.h>
#include <fmt/format.h>

#include "instance/branches.h"
#include "tests/sim/simulation.h"

namespace reprise::sim {

void Simulation::work() {
  Post& post = posts_[leader_];
  if (!runs(post) || world_.now_ns < post.writes_from_ns) return;
  Machine& machine = *post.machine;
  for (uint64_t n = 1 + pick(8); n > 0; --n) one_call(machine.guest());
  uint64_t what = pick(100);
  if (what < 12) {
    bool synced = machine.sync().has_value();
    note(synced ? "synced" : "not synced", leader_);
  } else if (what < 15) {
    // Never twice the same: one that was moved and lost with a tail is gone, where others have its former
    // place.
    auto mark = machine.instance().mark(fmt::format("m{}", ++marks_), "");
    if (mark && !machine.died()) machine.note_durable(machine.instance().vector());
  } else if (what < 18) {
    auto snapshot = machine.instance().snapshot(pick(2) == 0 ? "" : "kept");
    if (snapshot && !machine.died()) machine.note_durable(machine.instance().vector());
  } else if (what < 20) {
    static_cast<void>(machine.instance().trim());
  } else if (what < 21) {
    static_cast<void>(machine.instance().collect(0.3));
  } else if (what == 96) {
    reset_to_the_past(machine);
    if (machine.died()) return after_action(leader_);
  } else if (what >= 97) {
    try_on_a_branch(machine);
    if (machine.died()) return after_action(leader_);
  } else if (what < 25 && !connections_.empty()) {
    Connection& connection = *connections_[pick(connections_.size())];
    if (connection.leader != nullptr && connection.leader_machine == leader_)
      connection.leader->want_synced(machine.instance().vector());
  }
  if (likely(25)) look_at(machine);
  after_action(leader_);
}

void Simulation::try_on_a_branch(Machine& machine) {
  const std::string name = fmt::format("try{}", ++tries_);
  if (!machine.instance().fork(name) || machine.died()) return;
  Digest128 tree;
  {
    auto branch = machine.open_branch(name);
    if (!branch)
      return check(
          machine.died() || branch.error().code() == Code::kNoSpace || posts_[machine.number].disk_failed,
          name + " cannot be opened: " + branch.error().message());
    {
      fs::Guest guest((*branch)->filesystem(), {.label = name});
      for (uint64_t n = pick(6); n > 0; --n) one_call(guest);
    }
    for (uint64_t n = pick(2) * pick(8); n > 0; --n) one_call(machine.guest());
    auto moment = (*branch)->settle();
    if (!moment || !(*branch)->close() || machine.died()) return;
    tree = moment->position.digest;
  }
  if (pick(4) != 0) return join(machine, name, tree);
  note("discarded", machine.number);
  static_cast<void>(instance::discard_branch(machine.store(), name, machine.holder()));
}

void Simulation::join(Machine& machine, const std::string& branch, const Digest128& its_tree) {
  std::optional<replay::Winner> winner;
  if (pick(3) == 0) winner = pick(2) == 0 ? replay::Winner::kOurs : replay::Winner::kTheirs;
  auto joined = machine.instance().join(branch, winner);
  if (machine.died()) return;
  bool stays = !joined || !joined->conflicts.empty();
  note(!joined ? "not joined" : joined->resolved ? "resolved" : stays ? "refused" : "joined", machine.number);
  if (joined && !stays && !joined->moved) {
    auto pinned = machine.instance().pin();
    check(!pinned || machine.died() || pinned->view.digest() == its_tree,
          branch + " was joined, and the tree is another than it was there");
  }
  if (stays) static_cast<void>(instance::discard_branch(machine.store(), branch, machine.holder()));
}

// To a state that was seen since this machine was started: what is there then has the content it had.
void Simulation::reset_to_the_past(Machine& machine) {
  if (past_.starts != machine.starts() || past_.machine != machine.number)
    past_ = {.machine = machine.number, .starts = machine.starts()};
  if (!past_.contents.empty() && pick(2) == 0) {
    auto [index, content] = past_.contents[pick(past_.contents.size())];
    std::string keep = pick(4) == 0 ? fmt::format("kept{}", ++tries_) : "";
    auto reset = machine.instance().reset("main", fmt::format("{}", index), keep);
    if (machine.died()) return;
    note(reset ? "reset" : "not reset", machine.number);
    auto pinned = machine.instance().pin();
    if (reset && pinned && !machine.died())
      check(fs::content_digest(pinned->view) == content, fmt::format("reset to {} is something else", index));
    if (reset && !keep.empty())
      static_cast<void>(instance::discard_branch(machine.store(), keep, machine.holder()));
  }
  if (auto pinned = machine.instance().pin())
    if (auto content = fs::content_digest(pinned->view); content && !machine.died())
      past_.contents.emplace_back(pinned->moment.log_index, *content);
}

void Simulation::one_call(fs::Guest& guest) {
  auto name = [&] {
    std::string path(1, static_cast<char>('a' + pick(8)));
    while (pick(3) == 0) path += fmt::format("/{}", static_cast<char>('a' + pick(8)));
    return path;
  };
  auto bytes = [&] {
    size_t size = pick(20) == 0 ? pick(40'000) : pick(300);
    return std::string(size, static_cast<char>('A' + pick(26)));
  };
  if (pick(10) == 0) guest.set_label(fmt::format("request {}", pick(5)));
  bool done = false;
  std::string path = name();
  switch (pick(14)) {
    case 0:
    case 1:
    case 2:
      done = guest.write_file(path, bytes()).has_value();
      break;
    case 3:
    case 4:
      done = guest.mkdir(path).has_value();
      break;
    case 5:
      done = guest.rename(path, name()).has_value();
      break;
    case 6:
      done = guest.unlink(path).has_value();
      break;
    case 7:
      done = guest.link(path, name()).has_value();
      break;
    case 8:
      done = guest.truncate(path, static_cast<int64_t>(pick(30'000))).has_value();
      break;
    case 9:
      done = guest.symlink(name(), path).has_value();
      break;
    case 10:
      done = guest.chmod(path, static_cast<uint32_t>(pick(07777))).has_value();
      break;
    case 11:
      done = guest.set_xattr(path, "user.a", as_bytes(bytes().substr(0, 200))).has_value();
      break;
    case 12:
      done = guest.rmdir(path).has_value();
      break;
    default: {
      auto fd = guest.open(path, O_RDWR);
      if (!fd) break;
      done = guest.pwrite(*fd, as_bytes(bytes()), static_cast<int64_t>(pick(20'000))).has_value();
      if (pick(4) == 0)
        static_cast<void>(guest.fallocate(*fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 5000));
      static_cast<void>(guest.close(*fd));
    }
  }
  outcome_.calls += done;
}

void Simulation::housekeeping(Post& post) {
  if (!runs(post)) return;
  Machine& machine = *post.machine;
  if (likely(40)) machine.instance().journal().work();
  if (likely(3)) {
    std::vector<journal::Vector> peers;
    for (auto& connection : connections_)
      if (connection->leader != nullptr && connection->leader_machine == machine.number)
        peers.push_back(connection->leader->status().acked);
    static_cast<void>(machine.instance().tend(peers));
  }
  after_action(machine.number);
  if (!machine.up()) return;
  auto failure = machine.instance().failure();
  if (failure && failure->code() != Code::kNoSpace && likely(5)) crash(machine.number, post.disk_failed);
}

void Simulation::after_action(size_t index) {
  if (posts_[index].machine->up() && posts_[index].machine->died()) crash(index, likely(50));
}

}  // namespace reprise::sim
