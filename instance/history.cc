#include "instance/history.h"

#include <fmt/format.h>

#include <charconv>

#include "instance/branches.h"
#include "instance/name.h"
#include "instance/snapshots.h"

namespace reprise::instance {
namespace {

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_age_s(std::string_view text) {
  if (text.empty()) return std::nullopt;
  int64_t unit = 0;
  switch (text.back()) {
    case 's':
      unit = 1;
      break;
    case 'm':
      unit = 60;
      break;
    case 'h':
      unit = 3600;
      break;
    case 'd':
      unit = 86400;
      break;
    default:
      return std::nullopt;
  }
  auto count = parse_number(text.substr(0, text.size() - 1));
  if (!count || *count > 1'000'000'000) return std::nullopt;
  return static_cast<int64_t>(*count) * unit;
}

// The last batch that closed no later than `time`.
Result<LogIndex> index_at_time(store::Store& store, std::string_view branch, Timestamp time) {
  History history = TRY(History::open(store, branch));
  LogIndex found = 0;
  while (auto logged = TRY(history.cursor().next())) {
    if (logged->batch.header().time > time) break;
    found = logged->index;
  }
  if (found == 0)
    return fail(Code::kNotFound, fmt::format("{}: the journal does not reach back that far", name_of(store)));
  return found;
}

// The oldest state that a snapshot still has, for a person; nothing if there is none.
Result<std::string> oldest_state(store::Store& store, std::string_view branch) {
  std::optional<LogIndex> oldest;
  for (const store::SnapshotRecord& record : TRY(store.catalogue().snapshots()))
    if (record.branch == branch) oldest = std::min(oldest.value_or(record.log_index), record.log_index);
  return oldest ? fmt::format(", and the oldest state there is, is that after batch {}", *oldest) : "";
}

// The batch after which all of the position's vector was applied, and nothing more.
Result<LogIndex> index_of_position(store::Store& store, std::string_view branch,
                                   const journal::Position& position) {
  // From the last snapshot before it. What a snapshot does not cover lies behind it.
  journal::Vector applied;
  LogIndex begin = 0;
  std::optional<LogIndex> same_tree;
  for (const store::SnapshotRecord& record : TRY(store.catalogue().snapshots())) {
    if (record.branch != branch) continue;
    journal::Vector at = TRY(journal::Vector::decode(record.vector));
    if (at == position.vector) return record.log_index;
    bool covers = at.covers(position.vector);
    if (covers && record.digest == position.digest && record.log_index < same_tree.value_or(~LogIndex{0}))
      same_tree = record.log_index;
    if (covers || record.log_index < begin) continue;
    applied = std::move(at);
    begin = record.log_index;
  }
  auto history = History::open(store, branch, begin + 1);
  if (!history && history.error().code() == Code::kGap) history = History::open(store, branch);
  if (!history) return std::unexpected(history.error());
  while (auto logged = TRY(history->cursor().next())) {
    applied.set(logged->batch.header().origin, logged->batch.header().lsn);
    if (applied.covers(position.vector)) return logged->index;
  }
  // The journal has been trimmed up to a snapshot that is of that state.
  if (same_tree) return *same_tree;
  return fail(Code::kNotFound, fmt::format("{}: branch {} was never at that position, or it has been trimmed",
                                           name_of(store), branch));
}

}  // namespace

std::optional<Error> missing_beginning(const std::optional<store::BranchRecord>& branch, LogIndex first,
                                       bool begins_anew) {
  LogIndex begins = branch ? branch->journal_begins : 0;
  if (begins == 0 || first <= begins || begins_anew) return std::nullopt;
  return Error(
      Code::kCorrupt,
      fmt::format("the journal of branch {}: expected batches from {} at the latest, found them from {}: "
                  "segments at its beginning are missing; `reprise repair` goes on without them",
                  branch->name, begins, first));
}

Result<History> History::open(store::Store& store, std::string_view branch, LogIndex from) {
  History history;
  auto record = TRY(store.catalogue().branch(branch));
  history.directory_ = TRY(store.journal_directory(branch));
  history.cursor_ = TRY(journal::SegmentsCursor::open(
      *history.directory_, {store.volume(), std::string(branch)}, from, record ? record->durable_hint : 0));
  // Asked again: it may have been trimmed meanwhile, and the catalogue is told first.
  const journal::SegmentsCursor& cursor = *history.cursor_;
  auto lost = missing_beginning(TRY(store.catalogue().branch(branch)), cursor.first(), cursor.begins_anew());
  if (lost) return std::unexpected(lost->with_context(store.path()));
  return history;
}

Result<std::optional<LogIndex>> resolve_position(store::Store& store, std::string_view branch,
                                                 std::string_view position, Clock& clock) {
  if (position == "head" || position.empty()) return std::nullopt;
  if (auto index = parse_number(position)) return *index;
  if (position.starts_with("{") && position.ends_with("}")) {
    auto age_s = parse_age_s(position.substr(1, position.size() - 2));
    if (!age_s) {
      return fail(Code::kInvalidArgument,
                  fmt::format("@{}: expected a time such as @{{10m}} (s, m, h or d)", position));
    }
    Timestamp time = clock.realtime();
    time.sec -= *age_s;
    return TRY(index_at_time(store, branch, time));
  }
  if (position.starts_with("r0.")) {
    journal::Position parsed = TRY(journal::Position::parse_token(position));
    return TRY(index_of_position(store, branch, parsed));
  }
  auto mark = TRY(store.catalogue().mark(branch, position));
  if (mark && mark->log_index == 0) {
    return fail(Code::kNotFound,
                fmt::format("{}: branch {} passed the mark \"{}\" before the oldest state it has",
                            name_of(store), branch, position));
  }
  if (mark) return mark->log_index;
  return fail(Code::kNotFound,
              fmt::format("{}: branch {} has no mark \"{}\" (a position is a log index, a mark, a token, "
                          "a time such as {{10m}}, or head)",
                          name_of(store), branch, printable(position)));
}

Result<std::string> token_of(store::Store& store, std::string_view branch, const State& state) {
  if (state.log_index == 0) return state.position.to_token();
  auto history = History::open(store, branch, state.log_index);
  if (!history && history.error().code() == Code::kGap) return state.position.to_token();
  if (!history) return std::unexpected(history.error());
  auto last = TRY(history->cursor().next());
  if (!last || last->index != state.log_index) return state.position.to_token();
  const journal::BatchHeader& header = last->batch.header();
  return state.position.by_last_batch(header.origin, header.lsn).to_token();
}

namespace {

using ReplayWatch = std::function<bool(const replay::ReplayProgress&)>;

Result<State> build_state(store::Store& store, std::string_view branch, std::optional<LogIndex> until,
                          const ReplayWatch& progress, const LoadSnapshot& load) {
  // Of a join that was interrupted nobody sees a part.
  if (!until && !store.path().empty()) until = TRY(end_before_joins(store, branch));
  Base base = TRY(load_base(store, branch, until, load));
  const std::optional<store::SnapshotRecord>& snapshot = base.snapshot;
  LogIndex begin = snapshot ? snapshot->log_index : 0;
  State state{.head = std::move(base.head)};
  journal::Vector vector;
  if (snapshot) vector = TRY(journal::Vector::decode(snapshot->vector));
  state.snapshot = snapshot ? snapshot->id : 0;
  replay::Replayer replayer(vector, snapshot ? snapshot->lamport : 0);

  state.log_index = begin;
  if (!until || *until > begin) {
    auto opened = History::open(store, branch, begin + 1);
    // Without the journal in between, an older base is of no use: then the snapshot that cannot be read is
    // what is wrong.
    if (!opened && opened.error().code() == Code::kGap && !base.unreadable) {
      LogIndex oldest = TRY(History::open(store, branch)).cursor().first();
      return fail(
          Code::kGap,
          fmt::format("{}: branch {} cannot be shown as it was {}: its journal begins at batch {}{}",
                      name_of(store), branch, until ? fmt::format("after batch {}", *until) : "at its end",
                      oldest, TRY(oldest_state(store, branch))));
    }
    if (!opened) return std::unexpected(base.unreadable.value_or(opened.error()));
    History history = std::move(*opened);
    state.replayed = TRY(
        replayer.replay(history.cursor(), state.head, until.value_or(replay::Replayer::kToEnd), progress));
    if (state.replayed.log_index > begin) state.log_index = state.replayed.log_index;
    state.torn_tail = history.cursor().torn_tail();
  }
  // The journal does not reach what the snapshot held, as opening finds, too.
  if (base.unreadable && state.log_index < base.unreadable_index) return std::unexpected(*base.unreadable);
  if (until && state.log_index < *until) {
    return fail(Code::kNotFound, fmt::format("{}: branch {} has no batch {}; its last is {}", name_of(store),
                                             branch, *until, state.log_index));
  }
  state.head.settle();
  state.position = {replayer.applied(), state.head.digest()};
  state.lamport = replayer.lamport();
  return state;
}

}  // namespace

Result<State> state_at(store::Store& store, std::string_view branch, std::optional<LogIndex> until,
                       const ReplayWatch& progress) {
  return build_state(store, branch, until, progress, nullptr);
}

Result<State> open_state_at(const std::shared_ptr<store::Store>& store, std::string_view branch,
                            std::optional<LogIndex> until, const ReplayWatch& progress) {
  auto damage = std::make_shared<Damage>();
  auto state = build_state(*store, branch, until, progress, [&](const store::SnapshotRecord& record) {
    return open_snapshot(store, record, damage);
  });
  // What the journal goes on from cannot be loaded. Read whole, an older snapshot may do.
  if (!state && !damage->list().empty()) return state_at(*store, branch, until, progress);
  return state;
}

}  // namespace reprise::instance
