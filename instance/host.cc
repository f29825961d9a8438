#include "instance/host.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "fs/node_pool.h"
#include "instance/flush.h"
#include "instance/name.h"
#include "instance/watch.h"
#include "store/host_source.h"

namespace reprise::instance {
namespace {

constexpr uint32_t kWaitSlice_ms = 50;
constexpr uint32_t kWatchSlice_ms = 250, kWatchQuiet_ms = 1000;
constexpr uint64_t kLook_ns = 2'000'000;  // between looks at what peers have
constexpr uint32_t kGreeting_ms = 1000;   // a leader that is there has answered by then
constexpr uint32_t kRetry_ms = 1200;  // a follower that is there has tried again by then (FollowerOptions)

Json catch_up_json(const replay::FollowerStatus& status) {
  const replay::CatchUpDecision& decision = *status.decision;
  Json json = {{"tier", replay::tier_name(decision.tier)},
               {"reason", decision.reason},
               {"estimated_bytes", decision.estimated_bytes},
               {"received_bytes", status.catch_up_bytes},
               {"operations", status.catch_up_operations},
               {"milliseconds", static_cast<double>(status.catch_up_us) / 1000},
               {"snapshot_bytes", decision.snapshot_bytes}};
  if (decision.suffix_bytes) json["suffix_bytes"] = *decision.suffix_bytes;
  if (decision.difference_bytes) json["difference_bytes"] = *decision.difference_bytes;
  return json;
}

Json follower_json(const replay::FollowerStatus& status) {
  Json json = {{"state", replay::state_name(status.state)}, {"received_bytes", status.received_bytes},
               {"sent_bytes", status.sent_bytes},           {"batches", status.batches},
               {"overwrites", status.overwrites},           {"differences", status.differences},
               {"digests_compared", status.checkpoints},    {"lag_batches", status.lag_batches},
               {"connections", status.connections}};
  if (status.decision) json["catch_up"] = catch_up_json(status);
  if (status.last_error) json["last_error"] = status.last_error->message();
  if (status.last_resync) json["last_resync"] = status.last_resync->message();
  return json;
}

Json peer_json(const replay::PeerStatus& peer) {
  Json json = {{"name", peer.name},
               {"peer", peer.peer},
               {"connected", peer.connected},
               {"branch", peer.branch},
               {"tier", replay::tier_name(peer.tier)},
               {"reason", peer.reason},
               {"snapshot_bytes", peer.snapshot_bytes},
               {"sent_bytes", peer.sent_bytes},
               {"received_bytes", peer.received_bytes},
               {"digests_compared", peer.checkpoints},
               {"taken_back_batches", peer.taken_back},
               {"overwrites", peer.overwrites},
               {"resyncs", peer.resyncs}};
  if (peer.suffix_bytes) json["suffix_bytes"] = *peer.suffix_bytes;
  if (peer.difference_bytes) json["difference_bytes"] = *peer.difference_bytes;
  if (peer.connected && peer.greeted) {
    json["lag"] = {{"batches", peer.lag.batches},
                   {"operations", peer.lag.operations},
                   {"bytes", peer.lag.bytes},
                   {"milliseconds", static_cast<double>(peer.lag.us) / 1000}};
    if (peer.lag.at_least) json["lag"]["at_least"] = true;
  }
  if (!peer.ended.empty()) json["ended"] = peer.ended;
  return json;
}

Json journal_json(const journal::Journal& journal) {
  Json json = {{"first", journal.first()}, {"last", journal.last()}, {"durable", journal.durable()}};
  auto files = journal.files();
  if (!files) {
    json["files_failure"] = files.error().message();
    return json;
  }
  json["segments"] = files->segments.size();
  json["compressed_segments"] = files->compressed;
  json["bytes_on_disk"] = files->bytes;
  if (files->compression_failure) json["compression_failure"] = files->compression_failure->message();
  return json;
}

Json mark_json(const store::MarkRecord& mark) {
  return {
      {"name", mark.name}, {"branch", mark.branch}, {"log_index", mark.log_index}, {"position", mark.token}};
}

Json watched_json(const Watched& seen) {
  Json json = {{"overrun", seen.overrun}, {"changes", Json::array()}};
  for (const PathChange& change : seen.changes) {
    Json one = {{"kind", kind_name(change.kind)}, {"path", printable(change.path)}};
    if (!change.from.empty()) one["from"] = printable(change.from);
    if (change.content) one["content"] = true;
    if (change.attributes) one["attributes"] = true;
    json["changes"].push_back(std::move(one));
  }
  return json;
}

Json source_json(const store::HostSource& source) {
  Json json = {{"directory", source.path()}, {"bytes_read", source.bytes_read()}, {"failed", Json::array()}};
  for (const store::HostSource::Failure& failure : source.failures())
    json["failed"].push_back({{"path", printable(failure.path)}, {"why", failure.why}});
  return json;
}

std::string text_of(const Json& question, const char* key) {
  return question.contains(key) && question[key].is_string() ? question[key].get<std::string>() : "";
}

uint64_t number_of(const Json& question, const char* key, uint64_t otherwise) {
  return question.contains(key) && question[key].is_number_unsigned() ? question[key].get<uint64_t>()
                                                                      : otherwise;
}

double share_of(const Json& question) {
  return question.contains("dead_share") && question["dead_share"].is_number()
             ? question["dead_share"].get<double>()
             : 1.0 / 3;
}

}  // namespace

Json collected_json(const store::Collected& collected) {
  Json json = {{"bytes_before", collected.bytes_before},       {"bytes_after", collected.bytes_after},
               {"blobs_dropped", collected.blobs_dropped},     {"packs_removed", collected.packs_removed},
               {"packs_rewritten", collected.packs_rewritten}, {"packs_in_use", collected.packs_in_use},
               {"bytes_copied", collected.bytes_copied}};
  if (collected.left) json["left"] = collected.left->message();
  return json;
}

Json disk_json(store::Store& store, uint64_t limit) {
  auto usage = store.usage();
  if (!usage) return {{"failure", usage.error().message()}};
  Json json = {{"bytes", usage->all()},
               {"journals", usage->journals},
               {"packs", usage->packs},
               {"catalogue", usage->catalogue}};
  if (limit != 0) json["limit"] = limit;
  return json;
}

Json reset_json(const Reset& reset) {
  return {{"before", reset.before},
          {"branch", reset.branch},
          {"log_index", reset.log_index},
          {"operations", reset.operations}};
}

Json joined_json(const Joined& joined) {
  Json json = {{"batches", joined.batches},
               {"operations", joined.operations},
               {"moved", joined.moved},
               {"conflicts", Json::array()}};
  for (const replay::Conflict& conflict : joined.conflicts)
    json["conflicts"].push_back({{"path", printable(conflict.path)}, {"what", conflict.what}});
  if (joined.resolved) {
    json["resolved"] = joined.resolved == replay::Winner::kOurs ? "ours" : "theirs";
    json["left_out"] = Json::array();
    for (const replay::Merged::LeftOut& one : joined.left_out)
      json["left_out"].push_back({{"path", printable(one.path)}, {"what", one.what}});
  }
  return json;
}

Result<std::optional<replay::Winner>> winner_named(std::string_view name) {
  if (name.empty()) return std::optional<replay::Winner>{};
  if (name == "ours") return std::optional(replay::Winner::kOurs);
  if (name == "theirs") return std::optional(replay::Winner::kTheirs);
  return fail(Code::kInvalidArgument, fmt::format("expected ours or theirs, found {}", printable(name)));
}

Result<std::unique_ptr<Host>> Host::open(const HostOptions& options, Network& network) {
  std::unique_ptr<Host> host(new Host(options, network));
  host->options_.instance.follower = options.follow.has_value();
  const std::string& path = options.store_path;
  if (options.store == nullptr && path.empty() && !options.follow) {
    host->options_.store = store::Store::in_memory(options.instance.random.next_id<VolumeId>());
  }
  if (host->options_.store != nullptr) {
    host->instance_ = TRY(Instance::open(host->options_.store, host->options_.instance));
    return host;
  }
  bool is_there = !path.empty() && store::Store::looks_like_store(path);
  if (!is_there && options.follow) {
    host->made_store_ = true;
    host->instance_ = TRY(Instance::open_new_follower(path, host->options_.instance));
    return host;
  }
  std::shared_ptr<store::Store> store;
  if (!is_there) {
    auto made = store::Store::create(path, options.instance.random.next_id<VolumeId>());
    // One that somebody else made in this moment is as good.
    bool lost_race =
        !made && made.error().code() == Code::kAlreadyExists && store::Store::looks_like_store(path);
    if (!made && !lost_race) return std::unexpected(made.error());
    if (made) store = std::move(*made);
    host->made_store_ = !lost_race;
  }
  if (store == nullptr) store = TRY(store::Store::open(path));
  if ((options.listen || options.follow) && TRY(store->base_directory())) {
    return fail(Code::kUnsupported,
                fmt::format("{}: expected a store that has everything itself to replicate, found an overlay, "
                            "whose bytes lie in a directory of this host",
                            path));
  }
  host->instance_ = TRY(Instance::open(std::move(store), host->options_.instance));
  return host;
}

Host::~Host() {
  stop();
}

Status Host::take_back_tail(const std::function<bool()>& cancelled) {
  const uint32_t timeout_ms = options_.await_followers_ms;
  if (!options_.listen || timeout_ms == 0 || !instance_->may_take_back()) return {};
  log_warning("{}: {}; waiting up to {:.1f} s for followers that may have more", name_of(options_.store_path),
              instance_->was_promoted() ? "was a follower" : "was not closed cleanly",
              static_cast<double>(timeout_ms) / 1000);
  // A leader of its own: those who come now come again when guests are let in.
  auto leader = TRY(replay::Leader::listen(network_, *options_.listen, *instance_, options_.instance.clock,
                                           {.session = session_options()}));
  LogIndex before = instance_->journal().last();
  TRY(await_peers(*leader, cancelled));
  leader->stop();
  taken_back_ = instance_->journal().last() - before;
  if (*taken_back_ > 0) {
    log_warning("{}: took back {} batches that followers had and this disk {}", name_of(options_.store_path),
                *taken_back_, instance_->was_promoted() ? "had not" : "had lost");
  }
  return {};
}

// Until somebody was there and everybody had the time to be, and nobody is still sending; longer only while
// something comes.
Status Host::await_peers(replay::Leader& leader, const std::function<bool()>& cancelled) {
  const uint32_t timeout_ms = options_.await_followers_ms;
  Clock& clock = options_.instance.clock;
  const uint64_t begin_ns = clock.monotonic_ns();
  uint64_t moved_ns = begin_ns;
  for (LogIndex last = instance_->journal().last();;) {
    if (cancelled && cancelled()) return fail(Code::kCancelled, "cancelled while waiting for followers");
    uint64_t now_ns = clock.monotonic_ns();
    if (LogIndex now = instance_->journal().last(); now != last) {
      last = now;
      moved_ns = now_ns;
    }
    bool met = false, busy = false;
    for (const replay::PeerStatus& peer : leader.peers()) {
      met |= peer.decided;
      busy |= peer.connected && peer.greeted && !peer.decided;
    }
    bool everybody = now_ns - begin_ns >= uint64_t{std::min(kRetry_ms, timeout_ms)} * 1'000'000;
    if (met && !busy && everybody) return {};
    if (now_ns - moved_ns >= uint64_t{timeout_ms} * 1'000'000) return {};
    clock.sleep_ns(5'000'000);
  }
}

Status Host::set_limits() {
  fs::Filesystem& filesystem = instance_->filesystem();
  const fs::SetLimits before = filesystem.limits();
  fs::SetLimits limits = before;
  limits.bytes = options_.volume_bytes.value_or(limits.bytes);
  limits.inodes = options_.volume_inodes.value_or(limits.inodes);
  if (limits == before) return {};
  if (auto set = filesystem.set_limits(limits, options_.label); !set) {
    return std::unexpected(Error::from_errno(
        static_cast<int>(set.error()), name_of(options_.store_path) + ": cannot set the volume's limits"));
  }
  return {};
}

Status Host::connect(uint32_t contact_timeout_ms, const std::function<bool()>& cancelled) {
  if (!options_.follow) TRY(set_limits());
  if (options_.follow) {
    bool must_wait = instance_->store() == nullptr;
    follower_ = replay::Follower::start(network_, *options_.follow, *instance_, options_.instance.clock,
                                        {.session = session_options()});
    if (must_wait) TRY(follower_->wait_caught_up(contact_timeout_ms, cancelled));
    if (!must_wait) TRY(meet_leader(cancelled));
  }
  if (options_.listen) {
    leader_ = TRY(replay::Leader::listen(network_, *options_.listen, *instance_, options_.instance.clock,
                                         {.session = session_options()}));
  }
  std::string path = instance_->store()->control_socket_path(options_.instance.branch);
  if (path.empty()) return {};  // in memory: nothing to tend, nobody else to ask
  control_ = TRY(ControlServer::listen(
      network_, path,
      [this](const Json& question, const std::atomic<bool>& stopping, const ControlServer::Say& say) {
        return answer(question, stopping, say);
      }));
  keeper_ = std::make_unique<Keeper>(*instance_, [this] { return positions_of_peers(); });
  return {};
}

replay::SessionOptions Host::session_options() const {
  replay::SessionOptions options;
  options.name = options_.name;
  options.token = options_.token;
  options.random = &options_.instance.random;
  return options;
}

std::vector<journal::Vector> Host::positions_of_peers() const {
  std::vector<journal::Vector> positions;
  if (leader_ == nullptr) return positions;
  for (replay::PeerStatus& peer : leader_->peers()) {
    if (peer.connected && peer.greeted) positions.push_back(std::move(peer.acked));
  }
  return positions;
}

// An instance with a history of its own may begin with that while its leader is away, but not if the leader
// refuses it.
Status Host::meet_leader(const std::function<bool()>& cancelled) {
  auto met = follower_->wait_connected(kGreeting_ms, cancelled);
  if (!met && met.error().code() == Code::kCancelled) return met;
  TRY(check_not_detached());
  if (!met)
    log_warning("{}; beginning with what {} has", met.error().message(), name_of(options_.store_path));
  return {};
}

Status Host::check_not_detached() const {
  if (follower_ == nullptr) return {};
  replay::FollowerStatus status = follower_->status();
  if (status.state != replay::FollowerState::kDetached) return {};
  const std::optional<Error>& why = status.last_error;
  return fail(why && why->code() == Code::kUnauthorised ? Code::kUnauthorised : Code::kDetached,
              fmt::format("detached from {}: {}", options_.follow->to_string(),
                          why ? why->message() : "no reason given"));
}

Json Host::recovery_json() const {
  const OpenReport& report = instance_->open_report();
  Json json = {{"snapshot", report.snapshot},
               {"batches_replayed", report.batches_replayed},
               {"cut_bytes", report.recovery.cut_bytes},
               {"lazily", report.lazily}};
  if (taken_back_) json["taken_back_batches"] = *taken_back_;
  return json;
}

Json Host::statistics() {
  Json json;
  journal::Vector vector = instance_->vector();
  fs::Usage usage = instance_->filesystem().usage();
  journal::Journal& journal = instance_->journal();
  json["volume"] = instance_->volume().to_string();
  json["branch"] = instance_->branch();
  json["role"] = instance_->follower() ? "follower" : options_.listen ? "leader" : "writer";
  json["inodes"] = usage.inodes;
  json["bytes"] = usage.blocks * fs::kBlockSize;
  const fs::SetLimits limits = instance_->filesystem().limits();
  if (limits.inodes != 0) json["inodes_at_most"] = limits.inodes;
  if (limits.bytes != 0) json["bytes_at_most"] = limits.bytes;
  json["journal"] = journal_json(journal);
  json["opened"] = recovery_json();
  Json origins = Json::object();
  for (auto& [origin, lsn] : vector.entries()) origins[origin.to_string()] = lsn;
  json["vector"] = origins;
  json["disk"] = disk_json(*instance_->store(), options_.instance.retention.store_bytes);
  if (auto over = instance_->over_limit()) json["disk"]["over_limit"] = over->message();
  const uint64_t budget = options_.instance.retention.memory_bytes;
  json["memory"] = {{"bytes", fs::memory_in_use()}, {"evicted_bytes", instance_->evicted_bytes()}};
  if (budget != 0) json["memory"]["limit"] = budget;
  if (auto damage = instance_->damage(); !damage.empty()) json["damage"] = damage;
  if (auto failure = instance_->failure()) json["failure"] = failure->message();
  if (follower_ != nullptr) json["follow"] = follower_json(follower_->status());
  json["peers"] = Json::array();
  if (leader_ != nullptr) {
    for (const replay::PeerStatus& peer : leader_->peers(true)) json["peers"].push_back(peer_json(peer));
  }
  if (auto source = instance_->store()->source(); source && *source) json["rests_on"] = source_json(**source);
  if (more_statistics_) more_statistics_(json);
  return json;
}

Result<Json> Host::wait_for(const Json& question, const std::atomic<bool>& stopping) {
  std::string mark = text_of(question, "mark"), token = text_of(question, "position");
  uint64_t timeout_ms = number_of(question, "timeout_ms", 30'000);
  journal::Vector wanted;
  if (!token.empty()) wanted = TRY(journal::Position::parse_token(token)).vector;
  Clock& clock = options_.instance.clock;
  for (uint64_t begin = clock.monotonic_ns();;) {
    uint64_t waited_ms = (clock.monotonic_ns() - begin) / 1'000'000;
    uint64_t left_ms = timeout_ms > waited_ms ? timeout_ms - waited_ms : 0;
    auto slice = static_cast<uint32_t>(std::min<uint64_t>(left_ms, kWaitSlice_ms));
    std::optional<Error> error;
    if (!token.empty()) {
      if (auto status = instance_->wait_for(wanted, slice))
        return Json{{"position", token}};
      else
        error = status.error();
    } else {
      if (auto record = instance_->wait_for_mark(mark, slice))
        return mark_json(*record);
      else
        error = record.error();
    }
    if (error->code() != Code::kTimeout) return std::unexpected(*error);
    TRY(check_not_detached());
    if (stopping) return fail(Code::kCancelled, "the instance is closing");
    if (left_ms == 0) {
      return fail(Code::kTimeout, fmt::format("{} was not reached within {:.1f} s",
                                              token.empty() ? "the mark " + mark : "the position",
                                              static_cast<double>(timeout_ms) / 1000));
    }
  }
}

Result<Json> Host::flush_peers(const Json& question, const std::atomic<bool>& stopping) {
  if (leader_ == nullptr) {
    return fail(Code::kNotFound,
                fmt::format("{}: nobody can follow it: it does not listen", name_of(options_.store_path)));
  }
  if (flush_) TRY(flush_());
  replay::Moment moment = TRY(instance_->settle());
  FlushRequest request = TRY(FlushRequest::of(question, leader_->peers()));
  const uint64_t timeout_ms = number_of(question, "timeout_ms", 30'000);
  Clock& clock = options_.instance.clock;
  for (const uint64_t begin_ns = clock.monotonic_ns();;) {
    if (request.synced) leader_->want_synced(moment.position.vector);
    FlushState state = TRY(look_at_flush(request, leader_->peers(), moment.position.vector));
    if (state.missing.empty()) {
      return Json{{"position", TRY(instance_->token_of(moment))}, {"peers", std::move(state.peers)}};
    }
    if (stopping) return fail(Code::kCancelled, "the instance is closing");
    if (clock.monotonic_ns() - begin_ns >= timeout_ms * 1'000'000) {
      return fail(Code::kTimeout, fmt::format("not flushed within {:.1f} s: {}",
                                              static_cast<double>(timeout_ms) / 1000, state.missing));
    }
    clock.sleep_ns(kLook_ns);
  }
}

Result<Json> Host::promote() {
  if (!instance_->follower()) {
    return fail(Code::kInvalidArgument,
                fmt::format("{}: expected a follower to promote, found one that writes",
                            name_of(options_.store_path)));
  }
  if (!may_promote_) {
    return fail(
        Code::kUnsupported,
        fmt::format("{0}: is mounted, for reading: end what runs in it, `reprise promote {0}`, and begin it "
                    "again without --follow; what `serve` serves can be promoted as it is",
                    options_.store_path));
  }
  promoted_ = true;
  return Json{{"position", TRY(instance_->token_of(TRY(instance_->settle())))}};
}

// Nothing is said for a while where nothing changes; a part without changes then shows whether somebody still
// listens.
Result<Json> Host::watch(const std::atomic<bool>& stopping, const ControlServer::Say& say) {
  auto watch = TRY(Watch::begin(*instance_));
  TRY(say({{"began", TRY(instance_->token_of(TRY(instance_->settle())))}}));
  for (uint32_t quiet_ms = 0;;) {
    Watched seen = TRY(watch->next(kWatchSlice_ms));
    if (stopping) return fail(Code::kCancelled, "the instance is closing");
    bool silent = seen.changes.empty() && !seen.overrun;
    quiet_ms = silent ? quiet_ms + kWatchSlice_ms : 0;
    if (silent && quiet_ms < kWatchQuiet_ms) continue;
    TRY(say(watched_json(seen)));
    quiet_ms = 0;
  }
}

Result<Json> Host::answer(const Json& question, const std::atomic<bool>& stopping,
                          const ControlServer::Say& say) {
  std::string what = text_of(question, "ask");
  if (what == "wait-for") return wait_for(question, stopping);
  if (what == "stat") {
    auto moment = instance_->settle();
    Json json = statistics();
    if (!moment) {  // what the journal has refused has no position
      if (json.contains("failure")) return json;
      return std::unexpected(moment.error());
    }
    json["position"] = TRY(instance_->token_of(*moment));
    json["digest"] = moment->position.digest.to_string();
    return json;
  }
  if (what == "watch") return watch(stopping, say);
  if (what == "promote") return promote();
  if (what == "flush") return flush_peers(question, stopping);
  // The rest speaks of everything that was written before it was asked.
  if (flush_) TRY(flush_());
  if (what == "mark") return mark_json(TRY(instance_->mark(text_of(question, "name"), options_.label)));
  if (what == "sync") {
    TRY(instance_->sync());
    return Json{{"last", instance_->journal().last()}};
  }
  if (what == "digest") {
    Instance::Digests digests = TRY(instance_->digests());
    if (digests.kept != digests.recomputed) {
      return fail(
          Code::kCorrupt,
          fmt::format("the digest kept is {}, counted again from the bytes it is {}: memory is damaged",
                      digests.kept.to_string(), digests.recomputed.to_string()));
    }
    replay::Pinned pinned = TRY(instance_->pin());
    auto content = fs::content_digest(pinned.view);
    std::string token = TRY(instance_->token_of(pinned.moment));
    return Json{{"digest", pinned.moment.position.digest.to_string()},
                {"content", content ? content->to_string() : ""},
                {"position", token}};
  }
  if (what == "fork") {
    Fork fork = TRY(instance_->fork(text_of(question, "name")));
    return Json{{"parent", fork.parent}, {"log_index", fork.log_index}, {"snapshot", fork.snapshot}};
  }
  if (what == "join") {
    auto resolve = TRY(winner_named(text_of(question, "resolve")));
    return joined_json(TRY(instance_->join(text_of(question, "name"), resolve)));
  }
  if (what == "reset") {
    return reset_json(TRY(instance_->reset(text_of(question, "branch"), text_of(question, "position"),
                                           text_of(question, "keep"))));
  }
  if (what == "snapshot") {
    store::SnapshotRecord record = TRY(instance_->snapshot(text_of(question, "label")));
    Json json = {
        {"id", record.id},         {"log_index", record.log_index}, {"stored_bytes", record.stored_bytes},
        {"inodes", record.inodes}, {"bytes", record.bytes},         {"digest", record.digest.to_string()}};
    if (question.contains("trim")) json["journal_first"] = TRY(instance_->trim()).first;
    return json;
  }
  if (what == "drop-snapshot") {
    bool dropped = TRY(instance_->drop_snapshot(number_of(question, "id", 0)));
    return Json{{"dropped", dropped}};
  }
  if (what == "collect") return collected_json(TRY(instance_->collect(share_of(question))));
  return fail(Code::kUnsupported,
              fmt::format("asked for \"{}\", which this instance does not know", printable(what)));
}

Result<Json> Host::ask(const Json& question, const std::atomic<bool>& stopping) {
  return answer(question, stopping,
                [](const Json&) { return fail(Code::kUnsupported, "only a connection is told parts"); });
}

void Host::say_farewell(uint32_t timeout_ms) {
  if (leader_ == nullptr) return;
  // Nothing is written any more, so the vector stands still.
  auto moment = instance_->settle();
  if (!moment) return;  // the journal has failed: there is nothing to wait for
  Clock& clock = options_.instance.clock;
  uint64_t begin_ns = clock.monotonic_ns();
  auto behind = [&](const replay::PeerStatus& peer) {
    return peer.connected && peer.greeted && !peer.acked.covers(moment->position.vector);
  };
  for (;;) {
    std::vector<replay::PeerStatus> peers = leader_->peers();
    bool late = clock.monotonic_ns() - begin_ns > uint64_t{timeout_ms} * 1'000'000;
    if (late || std::none_of(peers.begin(), peers.end(), behind)) return;
    clock.sleep_ns(2'000'000);
  }
}

void Host::stop() {
  keeper_.reset();
  if (control_ != nullptr) control_->stop();
  if (leader_ != nullptr) leader_->stop();
  if (follower_ != nullptr) follower_->stop();
  control_.reset();
  leader_.reset();
  follower_.reset();
}

Status Host::close() {
  stop();
  // Also what lives for less than the keeper's pause keeps within its limits.
  if (Status tended = instance_->tend({}); !tended) log_warning("{}", tended.error().message());
  return instance_->close();
}

}  // namespace reprise::instance
