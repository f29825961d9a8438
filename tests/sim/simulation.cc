#include "tests/sim/simulation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/hash.h"
#include "base/log.h"

namespace reprise::sim {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kWriteTimeoutNs = 30'000 * kMs;  // LeaderOptions, FollowerOptions
constexpr uint64_t kRetryMaxMs = 1000;
constexpr uint64_t kHealingLimitMs = 300'000;
constexpr size_t kWriteMax = (1 << 20) + (64 << 10);  // handed out at once: a piece of a tree, or batches
constexpr size_t kRecentMax = 80;

std::string in_words(const journal::Vector& vector) {
  std::string text;
  for (const auto& [origin, lsn] : vector.entries())
    text += fmt::format(" {}:{}", origin.to_short_string(), lsn);
  return text;
}

}  // namespace

Simulation::Simulation(const Plan& plan) : plan_(plan), chance_(plan.seed) {
  session_random_ = std::make_unique<SeededRandom>(chance_());
  session_.random = session_random_.get();
  session_.difference_from_bytes = session_.offer_from_bytes = 1000;  // trees are small here
  VolumeId volume{.hi = 1, .lo = plan.seed + 1};
  size_t machines = 2 + pick(4);
  for (size_t i = 0; i < machines; ++i) {
    Post post;
    post.machine = std::make_unique<Machine>(world_, i, volume, chance_());
    if (i > 0) post.follows = likely(60) ? 0 : pick(i);
    post.budget = std::make_unique<replay::ResyncBudget>(session_.resyncs_per_minute);
    posts_.push_back(std::move(post));
  }
}

Outcome Simulation::run() {
  set_log_sink([](LogLevel, std::string_view) {});
  for (size_t round = 0; round < plan_.rounds && !outcome_.failure; ++round) {
    trouble();
    if (!outcome_.failure) heal();
  }
  connections_.clear();
  outcome_.simulated_ms = world_.now_ns / kMs;
  set_log_sink(nullptr);
  return std::move(outcome_);
}

void Simulation::trouble() {
  for (size_t step_number = 0; step_number < plan_.steps_per_round && !outcome_.failure; ++step_number) {
    step(false);
    if (likely(4)) befall();
  }
}

void Simulation::heal() {
  note("healing");
  for (auto& [machines, way] : paths_) way = {};
  for (Post& post : posts_) {
    post.machine->disk().heal();
    post.down_until_ns = post.stands_still_until_ns = post.writes_from_ns = 0;
    if (post.machine->up() && (post.disk_failed || post.machine->instance().failure()))
      crash(post.machine->number, post.disk_failed);
  }
  uint64_t begin_ns = world_.now_ns;
  while (!outcome_.failure && !all_in_step()) {
    for (Post& post : posts_) {
      if (!post.detached) continue;
      note("begun again", post.machine->number);  // by an operator
      drop_follower_end(post);
      post.detached = false;
    }
    world_.now_ns += 10 * kMs;
    step(true);
    check(world_.now_ns - begin_ns < kHealingLimitMs * kMs, "not in step in time: " + state());
  }
  if (!outcome_.failure) check_converged();
  damaged_ = false;
}

// A moment in which everybody may do something.
void Simulation::step(bool calm) {
  world_.now_ns += pick(2 * kMs);
  if (!calm) work();
  for (Post& post : posts_) {
    start(post);
    if (outcome_.failure) return;
    housekeeping(post);
    connect(post);
  }
  for (size_t i = 0; i < connections_.size() && !outcome_.failure; ++i)
    if (calm || likely(70)) pump(*connections_[i]);
  std::erase_if(connections_, [](const auto& c) { return c->leader == nullptr && c->follower == nullptr; });
}

void Simulation::pass_ms(uint64_t ms, bool calm) {
  for (uint64_t end_ns = world_.now_ns + ms * kMs; world_.now_ns < end_ns && !outcome_.failure;) {
    world_.now_ns += 200 * kMs;
    step(calm);
  }
}

// --- what befalls machines and ways

void Simulation::befall() {
  size_t who = pick(posts_.size());
  Post& post = posts_[who];
  Machine& machine = *post.machine;
  size_t other = pick(posts_.size());
  switch (pick(16)) {
    case 0:
      path(who, other).cut = !path(who, other).cut;
      return note("cut or mended", who, other);
    case 1:
      path(who, other).delay_ns = pick(3) == 0 ? pick(2'000 * kMs) : pick(20 * kMs);
      return note("delay", who, other);
    case 2:
      return crash(who, true);
    case 3:
      return crash(who, false);
    case 4:
      if (machine.up() && !machine.died()) {
        machine.disk().program().die_after(1 + pick(30));
        note("will die", who);
      }
      return;
    case 5:
      return close_cleanly(who);
    case 6:
      machine.disk().fill_up(pick(4000));
      marks_may_differ_ = true;
      return note("disk full", who);
    case 7:
      if (!post.disk_failed) machine.disk().heal();
      return note("disk has space", who);
    case 8:
      if (machine.up()) {
        pick(2) == 0 ? machine.disk().fail_next_write(EIO) : machine.disk().fail_next_sync(EIO);
        post.disk_failed = marks_may_differ_ = true;
        note("disk fails", who);
      }
      return;
    case 9:
      machine.clock.jump_s(static_cast<int64_t>(pick(2'000'000)) - 1'000'000);
      return note("clock jumps", who);
    case 10:
      post.stands_still_until_ns = world_.now_ns + pick(pick(4) == 0 ? 150'000 * kMs : 500 * kMs);
      return note("stands still", who);
    case 11:
      return follow_another();
    case 12:
      return leave_and_join();
    case 13:
      return promote_somebody();
    case 14:
      if (!connections_.empty()) {
        Connection& connection = *connections_[pick(connections_.size())];
        bool damaged = pick(2) == 0 ? connection.down.damage(chance_) : connection.up.damage(chance_);
        damaged_ |= damaged;
        if (damaged) note("bytes damaged", connection.number);
      }
      return;
    default:
      note("time passes");
      return pass_ms(pick(3) == 0 ? pick(200'000) : pick(3'000), true);
  }
}

void Simulation::crash(size_t index, bool power) {
  Post& post = posts_[index];
  if (!post.machine->up()) return;
  power |= post.disk_failed;  // what a failed sync leaves behind in memory is not to be trusted
  note(power ? "power fails" : "killed", index);
  drop_ends_of(index, !power);
  post.machine->stop_dead(power, chance_);
  if (post.disk_failed) post.machine->disk().heal();
  post.disk_failed = false;
  post.down_until_ns = world_.now_ns + pick(likely(10) ? 60'000 * kMs : 300 * kMs);
}

void Simulation::close_cleanly(size_t index) {
  Post& post = posts_[index];
  if (!runs(post) || post.disk_failed) return;
  drop_ends_of(index, true);
  Status closed = post.machine->close();
  note(closed ? "closed" : "closed badly", index);
  // The process ends; nothing that it closed is in doubt.
  bool dead = post.machine->died();
  post.machine->stop_dead(dead && likely(50), chance_);
  post.down_until_ns = world_.now_ns + pick(300 * kMs);
}

void Simulation::start(Post& post) {
  Machine& machine = *post.machine;
  if (machine.up() || world_.now_ns < post.down_until_ns) return;
  Status started = machine.start(post.follows.has_value());
  post.down_until_ns = world_.now_ns + 100 * kMs;
  if (machine.died() || (!started && started.error().code() == Code::kNoSpace)) {
    note("not started", machine.number);
    return machine.stop_dead(machine.died() && likely(50), chance_);
  }
  check(started.has_value(),
        fmt::format("{} cannot be opened: {}", machine.name, started ? "" : started.error().message()));
  if (!started) return;
  post.unfinished = std::make_unique<replay::UnfinishedTree>();
  note("started", machine.number, machine.instance().vector().entries().size());
  // Who died while it was overwritten is what it was overwritten with, and has kept what it was.
  bool kept = machine.count_kept() > 0;
  if (!machine.instance().vector().covers(machine.durable())) {
    check(kept, fmt::format("{} has lost what was on its disk: {}, of{}", machine.name,
                            in_words(machine.instance().vector()), in_words(machine.durable())));
    machine.note_overwritten();
  }
  if (!post.follows) post.writes_from_ns = world_.now_ns + pick(2) * pick(3'000 * kMs);
  post.detached = false;
  post.retry_at_ns = 0;
  look_at(machine);
}

void Simulation::promote_somebody() {
  size_t who = pick(posts_.size());
  Post& post = posts_[who];
  if (who == leader_ || !runs(post) || post.machine->instance().vector().empty() || post.disk_failed) return;
  if (post.machine->died()) return;
  if (pick(2) == 0) {
    crash(leader_, pick(2) == 0);
  } else {
    close_cleanly(leader_);
  }
  if (posts_[leader_].machine->up()) return;
  if (pick(2) == 0) {
    crash(who, false);
  } else {
    close_cleanly(who);
  }
  if (post.machine->up()) return;
  post.machine->disk().heal();
  Status promoted = post.machine->promote();
  check(promoted.has_value(), promoted ? "" : "cannot promote: " + promoted.error().message());
  note("promoted", who);
  marks_may_differ_ = true;
  leader_ = who;
  for (Post& each : posts_) {
    each.follows = who;
    each.detached = false;
    if (&each != &post) drop_follower_end(each);
  }
  post.follows.reset();
  post.down_until_ns = 0;
}

void Simulation::drop_follower_end(Post& post) {
  for (auto& connection : connections_) {
    if (connection->follower_machine != post.machine->number || connection->follower == nullptr) continue;
    connection->follower.reset();
    connection->up.end();
  }
  post.budget = std::make_unique<replay::ResyncBudget>(session_.resyncs_per_minute);
  post.unfinished = std::make_unique<replay::UnfinishedTree>();
}

void Simulation::follow_another() {
  size_t who = pick(posts_.size()), whom = pick(posts_.size());
  if (who == leader_ || who == whom) return;
  for (size_t up = whom; posts_[up].follows; up = *posts_[up].follows)
    if (*posts_[up].follows == who) return;  // in a circle
  note("follows another", who, whom);
  drop_follower_end(posts_[who]);
  posts_[who].follows = whom;
  posts_[who].detached = false;
}

void Simulation::leave_and_join() {
  size_t who = pick(posts_.size());
  if (who == leader_) return;
  crash(who, false);
  if (posts_[who].machine->up()) return;
  note("left, and joins anew", who);
  posts_[who].machine->forget_everything();
}

// --- the network

void Simulation::connect(Post& post) {
  Machine& machine = *post.machine;
  if (!post.follows || !runs(post) || post.detached || world_.now_ns < post.retry_at_ns) return;
  for (const auto& connection : connections_)
    if (connection->follower_machine == machine.number && connection->follower != nullptr) return;
  post.retry_at_ns = world_.now_ns + post.retry_ms * kMs;
  post.retry_ms = std::min(post.retry_ms * 2, kRetryMaxMs);
  Post& whom = posts_[*post.follows];
  if (!runs(whom) || path(machine.number, *post.follows).cut) return;
  auto connection = std::make_unique<Connection>();
  connection->number = next_connection_++;
  connection->leader_machine = *post.follows;
  connection->leader_start = whom.machine->starts();
  connection->follower_machine = machine.number;
  connection->leader = std::make_unique<replay::LeaderLink>(whom.machine->instance(), whom.machine->clock,
                                                            session_, &whom.machine->kept_trees());
  replay::SessionOptions session = session_;
  session.offers_tree = machine.number % 2 == 1;
  auto link = replay::FollowerLink::begin(machine.instance(), machine.clock, session, *post.budget,
                                          *post.unfinished, uint64_t{1} << 28);
  if (!link) return note("cannot greet", machine.number);
  connection->follower = std::move(*link);
  note("connected", connection->number, machine.number, *post.follows);
  connections_.push_back(std::move(connection));
}

void Simulation::send(Connection& connection, bool down, Bytes bytes) {
  if (bytes.empty()) return;
  const Path& way = path(connection.leader_machine, connection.follower_machine);
  Pipe& pipe = down ? connection.down : connection.up;
  // Who is not there any more says so, once he is back.
  bool gone = down ? connection.follower == nullptr : connection.leader == nullptr;
  size_t there = down ? connection.follower_machine : connection.leader_machine;
  if (gone && !way.cut && posts_[there].machine->up()) (down ? connection.up : connection.down).end();
  if (!gone) pipe.push(std::move(bytes), world_.now_ns + way.delay_ns);
}

void Simulation::pump(Connection& connection) {
  if (connection.leader != nullptr && runs(posts_[connection.leader_machine])) {
    pump_leader(connection);
    after_action(connection.leader_machine);
  }
  if (connection.follower != nullptr && runs(posts_[connection.follower_machine])) {
    pump_follower(connection);
    after_action(connection.follower_machine);
  }
}

void Simulation::pump_leader(Connection& connection) {
  Machine& machine = *posts_[connection.leader_machine].machine;
  bool cut = path(connection.leader_machine, connection.follower_machine).cut;
  replay::LeaderLink& link = *connection.leader;
  while (!cut) {
    auto bytes = connection.up.pop(world_.now_ns);
    if (!bytes) break;
    ByteView rest = *bytes;
    while (!rest.empty()) {
      size_t n = std::min<size_t>(rest.size(), 1 + pick(2000));
      link.receive(rest.first(n));
      rest = rest.subspan(n);
    }
  }
  if (!cut && connection.up.at_end()) link.close(Error(Code::kUnreachable, "the peer closed the connection"));
  Bytes said;
  bool over = false;
  while (!over && connection.down.has_room() && said.size() < kPipeBytes) {
    auto did = link.step([&](std::span<const ByteView> pieces) -> Status {
      size_t before = said.size();
      for (ByteView piece : pieces) append_bytes(said, piece);
      check(said.size() - before <= kWriteMax, "a link hands out too much at once");
      return {};
    });
    over = !did;
    if (!did || *did == replay::LeaderLink::Activity::kIdle) break;
  }
  if (machine.died()) return;
  if (connection.down.has_room())
    connection.down_stuck_ns = 0;
  else if (connection.down_stuck_ns == 0)
    connection.down_stuck_ns = world_.now_ns;
  else
    over |= world_.now_ns - connection.down_stuck_ns > kWriteTimeoutNs;
  if (likely(10) && connection.follower != nullptr) {
    // What it says to have on its disk, it will have.
    Machine& peer = *posts_[connection.follower_machine].machine;
    journal::Vector synced = link.status().synced;
    if (peer.up() && !peer.died() && peer.instance().vector().covers(synced)) peer.note_durable(synced);
  }
  send(connection, true, std::move(said));
  if (!over) return;
  note("leader's end over", connection.number);
  connection.leader.reset();
  connection.down.end();
}

void Simulation::pump_follower(Connection& connection) {
  Post& post = posts_[connection.follower_machine];
  Machine& machine = *post.machine;
  replay::FollowerLink& link = *connection.follower;
  bool cut = path(connection.leader_machine, connection.follower_machine).cut;
  journal::Vector before = machine.instance().vector();
  while (!cut && !link.session().closed() && !link.says_more()) {
    auto bytes = connection.down.pop(world_.now_ns);
    if (!bytes) break;
    for (ByteView rest = *bytes; !rest.empty();) {
      size_t n = std::min<size_t>(rest.size(), 1 + pick(30'000));
      link.receive(rest.first(n));
      rest = rest.subspan(n);
    }
  }
  if (!cut && connection.down.at_end())
    link.close(Error(Code::kUnreachable, "the leader closed the connection"));
  link.tick();
  Bytes said;
  bool stuck = false;
  if (connection.up.has_room()) {
    connection.up_stuck_ns = 0;
    do {
      for (const replay::Outgoing& out : link.take_output()) {
        std::vector<ByteView> pieces;
        out.append_pieces(pieces);
        for (ByteView piece : pieces) append_bytes(said, piece);
      }
    } while (link.says_more() && said.size() < kPipeBytes);
  } else if (connection.up_stuck_ns == 0) {
    connection.up_stuck_ns = world_.now_ns;
  } else {
    stuck = world_.now_ns - connection.up_stuck_ns > kWriteTimeoutNs;
  }
  if (machine.died()) return;
  if (link.overwrites() != connection.overwrites) {
    connection.overwrites = link.overwrites();
    bool missing = link.session().decision()->tier == replay::Tier::kMissingBlobs;
    note(missing ? "overwritten by missing blobs" : "overwritten", machine.number);
    bool alone = !machine.instance().vector().covers(before);
    marks_may_differ_ |= alone;
    check(!alone || machine.count_kept() > 0,
          machine.name + " was overwritten and kept nothing of what it alone had");
    machine.note_overwritten();
    look_at(machine);
  } else {
    check(machine.instance().vector().covers(before), machine.name + " went back without being overwritten");
  }
  if (link.differences() != connection.differences) {
    connection.differences = link.differences();
    note("brought by a difference", machine.number);
    machine.note_overwritten();
    look_at(machine);
  }
  if (const auto& resync = link.session().last_resync()) {
    bool differs = resync->code() == Code::kDivergence || resync->code() == Code::kCorrupt;
    check(!differs || damaged_, fmt::format("{} is out of step: {}", machine.name, resync->message()));
  }
  if (likely(20)) look_at(machine);
  send(connection, false, std::move(said));
  if (link.session().caught_up()) post.retry_ms = 10;
  if (!link.session().closed() && !stuck) return;
  note("follower's end over: " + (link.session().closed() ? link.session().closed()->message() : "stuck"),
       connection.number);
  post.detached = link.session().hopeless();
  if (post.detached) ++outcome_.events["detached"];
  connection.follower.reset();
  connection.up.end();
}

void Simulation::drop_ends_of(size_t index, bool says_so) {
  for (auto& connection : connections_) {
    if (connection->leader_machine == index && connection->leader != nullptr) {
      connection->leader.reset();
      if (says_so) connection->down.end();
    }
    if (connection->follower_machine == index && connection->follower != nullptr) {
      connection->follower.reset();
      if (says_so) connection->up.end();
    }
  }
}

// --- what must hold

void Simulation::look_at(Machine& machine) {
  auto pinned = machine.instance().pin();
  if (machine.died()) return;
  if (!pinned)
    return check(machine.instance().failure().has_value(), machine.name + ": " + pinned.error().message());
  const replay::Moment& moment = pinned->moment;
  Digest128 counted = pinned->view.recompute_digest();
  check(counted == moment.position.digest, machine.name + ": the digest is not that of the bytes");
  auto [at, is_new] = states_.try_emplace(moment.position.vector.encode(), counted);
  check(at->second == counted, machine.name + " has another tree than was seen at the same vector");
  // Not in the story, where it would be every other line.
  uint64_t seen[] = {outcome_.trace, machine.number, counted.lo, moment.log_index};
  outcome_.trace = hash64(std::as_bytes(std::span(seen)));
}

bool Simulation::all_in_step() {
  Post& leader = posts_[leader_];
  if (!leader.machine->up()) return false;
  auto moment = leader.machine->instance().settle();
  if (!moment) return false;
  for (Post& post : posts_) {
    if (!post.machine->up()) return false;
    if (post.machine->instance().vector() != moment->position.vector) return false;
  }
  return connections_.size() == posts_.size() - 1;
}

void Simulation::check_converged() {
  auto marks_of = [](Machine& machine) {
    std::vector<std::string> names;
    auto marks = machine.instance().marks();
    if (marks)
      for (const replay::Mark& mark : *marks) names.push_back(mark.name);
    return names;
  };
  std::vector<std::string> leaders = marks_of(*posts_[leader_].machine);
  for (Post& post : posts_) {
    look_at(*post.machine);
    std::vector<std::string> names = marks_of(*post.machine);
    // A relay whose disk is full cannot note a mark, and hands on its tree without it; and who was
    // overwritten still has the marks of what it had alone.
    for (const std::string& name : leaders)
      check(marks_may_differ_ || std::ranges::find(names, name) != names.end(),
            post.machine->name + " lacks the mark " + name);
    outcome_.trace = hash64(as_bytes(std::to_string(post.machine->disk().changes())), outcome_.trace);
  }
  note("in step");
}

void Simulation::check(bool holds, const std::string& what) {
  if (holds || outcome_.failure) return;
  std::string story;
  for (const std::string& line : recent_) story += line + "\n";
  outcome_.failure = fmt::format("seed {}: {}\n{}", plan_.seed, what, story);
}

void Simulation::note_line(const std::string& what, const std::string& line) {
  recent_.push_back(fmt::format("{:>10} {}", world_.now_ns / 1000, line));
  outcome_.trace = hash64(as_bytes(recent_.back()), outcome_.trace);
  ++outcome_.events[what.substr(0, what.find(':'))];
  if (recent_.size() > kRecentMax) recent_.erase(recent_.begin());
}

std::string Simulation::state() {
  std::string text;
  for (const Post& post : posts_) {
    text += fmt::format("\n  {}: {}", post.machine->name,
                        post.follows ? fmt::format("follows m{}", *post.follows) : "leads");
    if (!post.machine->up()) {
      text += ", down";
      continue;
    }
    text += in_words(post.machine->instance().vector());
    if (auto failure = post.machine->instance().failure()) text += ", " + failure->message();
  }
  return text + fmt::format("\n  {} connections", connections_.size());
}

}  // namespace reprise::sim
