#include "instance/branches.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/hash.h"
#include "instance/memory_branch.h"
#include "instance/name.h"
#include "instance/snapshots.h"

namespace reprise::instance {
namespace {

constexpr const char* kMainBranch = "main";
constexpr const char* kForkFile = "fork";
constexpr const char* kJoiningFile = "joining";  // beside `fork`: the parent's last batch before, u64
constexpr std::string_view kForkMagic = "reprise fork\n\0\0\0";
constexpr uint32_t kForkVersion = 0;
constexpr uint64_t kForkBytesMax = 2 << 20;

// magic 16, version u32, bytes of the parent's name u32, log index, lamport, snapshot, seconds u64 each, ns
// u32, zero u32, digest 16, the parent's name, bytes of the vector u64, vector, checksum u64 of all before
// it.
Bytes encode(const Fork& fork) {
  Bytes out;
  Bytes vector = fork.position.vector.encode();
  append_bytes(out, as_bytes(kForkMagic));
  append_value(out, kForkVersion);
  append_value(out, static_cast<uint32_t>(fork.parent.size()));
  for (uint64_t number : {fork.log_index, fork.lamport, fork.snapshot, static_cast<uint64_t>(fork.time.sec)})
    append_value(out, number);
  append_value(out, fork.time.nsec);
  append_value(out, uint32_t{0});
  append_value(out, fork.position.digest);
  append_bytes(out, as_bytes(fork.parent));
  append_value(out, static_cast<uint64_t>(vector.size()));
  append_bytes(out, vector);
  append_value(out, hash64(out));
  return out;
}

Result<Fork> decode(ByteView bytes, const std::string& path) {
  auto corrupt = [&](std::string_view what) {
    return fail(Code::kCorrupt, fmt::format("{}: expected where a branch was forked, found {}", path, what));
  };
  ByteReader in(bytes);
  if (!std::ranges::equal(in.take(kForkMagic.size()), as_bytes(kForkMagic))) return corrupt("other bytes");
  auto version = in.value<uint32_t>();
  if (in.ok() && version != kForkVersion)
    return fail(Code::kUnsupported,
                fmt::format("{}: expected version {}, found {}", path, kForkVersion, version));
  Fork fork;
  auto name_bytes = in.value<uint32_t>();
  fork.log_index = in.value<uint64_t>();
  fork.lamport = in.value<uint64_t>();
  fork.snapshot = in.value<uint64_t>();
  fork.time.sec = static_cast<int64_t>(in.value<uint64_t>());
  fork.time.nsec = in.value<uint32_t>();
  in.value<uint32_t>();
  fork.position.digest = in.value<Digest128>();
  fork.parent = as_text(in.take(name_bytes));
  ByteView vector = in.take(in.value<uint64_t>());
  uint64_t expected = hash64(bytes.first(bytes.size() - in.remaining()));
  auto found = in.value<uint64_t>();
  if (!in.at_end()) return corrupt("more or fewer bytes");
  if (found != expected) return corrupt("a wrong checksum");
  fork.position.vector = TRY(journal::Vector::decode(vector));
  TRY(store::Store::check_name("branch", fork.parent));
  return fork;
}

bool in_memory(const store::Store& store) {
  return store.path().empty();
}

Result<Branch> read_branch(store::Store& store, std::string_view name) {
  Branch branch{.name = std::string(name)};
  if (in_memory(store)) {
    if (auto kept = memory_branch(store, name)) branch.fork = kept->fork;
    return branch;
  }
  auto folder = TRY(store.branch_directory(name));
  if (!TRY(folder->exists(kForkFile))) return branch;
  branch.fork =
      TRY(decode(TRY(folder->read_file(kForkFile, kForkBytesMax)), folder->path() + "/" + kForkFile));
  branch.joining = TRY(folder->exists(kJoiningFile));
  return branch;
}

// A branch that is there, not what a fork or discard left half done.
Result<bool> is_there(store::Store& store, std::string_view name) {
  std::vector<std::string> names = TRY(store.branch_names());
  if (std::ranges::find(names, name) == names.end()) return false;
  if (name == kMainBranch || store.kept_branch(name) != nullptr) return true;
  // One that began by itself has a record in the catalogue. Of one that goes, that goes first, then `fork`.
  if (!in_memory(store) && TRY(TRY(store.branch_directory(name))->exists(kForkFile))) return true;
  return TRY(store.catalogue().branch(name)).has_value();
}

bool is_unreadable(const Error& error) {
  return error.code() == Code::kCorrupt || error.code() == Code::kUnsupported;
}

// The snapshots and marks of a branch.
Status forget(store::Store& store, std::string_view name) {
  for (const store::SnapshotRecord& record : TRY(store.catalogue().snapshots())) {
    if (record.branch == name) TRY(store.catalogue().remove_snapshot(record.id));
  }
  for (const store::MarkRecord& mark : TRY(store.catalogue().marks())) {
    if (mark.branch == name) TRY(store.catalogue().remove_mark(name, mark.name));
  }
  return {};
}

std::unexpected<Error> is_there_already(store::Store& store, std::string_view name) {
  return fail(Code::kAlreadyExists, fmt::format("{}: there is a branch {} already", name_of(store), name));
}

Status keep_in_folder(store::Store& store, std::string_view name, const replay::Pinned& pinned, Fork& fork) {
  auto folder = TRY(store.branch_directory(name));
  TRY(store.clear_branch_directory(name));
  store::SnapshotRecord record;
  record.branch = name;
  record.label = fmt::format("fork of {}@{}", fork.parent, fork.log_index);
  record.time = fork.time;
  record.log_index = fork.log_index;
  record.vector = fork.position.vector.encode();
  record.digest = fork.position.digest;
  record.lamport = fork.lamport;
  fork.snapshot = TRY(capture_snapshot(store, pinned.view, record)).id;
  TRY(store.journal_directory(name));
  return folder->replace_file(kForkFile, encode(fork));
}

Status keep_in_memory(store::Store& store, std::string_view name, const replay::Pinned& pinned,
                      const Fork& fork) {
  auto journal = TRY(journal_since(fork, nullptr, {store.volume(), std::string(name)}, {}));
  store.keep_branch(name, std::make_shared<MemoryBranch>(fork, pinned.view, std::move(journal), &pinned));
  return {};
}

}  // namespace

Result<Fork> fork_branch(store::Store& store, std::string_view name, std::string_view parent,
                         const replay::Pinned& pinned, const store::LockHolder& holder, Clock& clock) {
  TRY(store::Store::check_name("branch", name));
  if (TRY(is_there(store, name))) return is_there_already(store, name);
  auto lock = TRY(store.lock_branch(name, holder));
  if (TRY(is_there(store, name))) return is_there_already(store, name);
  TRY(forget(store, name));  // what an interrupted fork or discard has left
  const replay::Moment& moment = pinned.moment;
  Fork fork{.parent = std::string(parent),
            .log_index = moment.log_index,
            .lamport = moment.lamport,
            .snapshot = 0,
            .position = moment.position,
            .time = clock.realtime()};
  TRY(in_memory(store) ? keep_in_memory(store, name, pinned, fork)
                       : keep_in_folder(store, name, pinned, fork));
  return fork;
}

Result<std::vector<Branch>> list_branches(store::Store& store) {
  std::vector<Branch> branches;
  for (const std::string& name : TRY(store.branch_names())) {
    if (!TRY(is_there(store, name))) continue;
    auto branch = read_branch(store, name);
    if (!branch && !is_unreadable(branch.error())) return std::unexpected(branch.error());
    branches.push_back(branch ? std::move(*branch) : Branch{.name = name, .damaged = branch.error()});
  }
  return branches;
}

Result<std::vector<std::string>> unfinished_joins(store::Store& store, std::string_view parent) {
  std::vector<std::string> joining;
  if (in_memory(store)) return joining;  // whoever would interrupt one takes the store away as well
  for (const std::string& name : TRY(store.branch_names())) {
    auto folder = TRY(store.branch_directory(name));
    if (!TRY(folder->exists(kJoiningFile)) || !TRY(folder->exists(kForkFile))) continue;
    if (TRY(read_branch(store, name)).fork->parent == parent) joining.push_back(name);
  }
  return joining;
}

Result<std::optional<LogIndex>> end_before_join(store::Store& store, std::string_view name) {
  auto folder = TRY(store.branch_directory(name));
  if (folder == nullptr || !TRY(folder->exists(kJoiningFile))) return std::optional<LogIndex>{};
  Bytes bytes = TRY(folder->read_file(kJoiningFile, 64));
  ByteReader in(bytes);
  auto last = in.value<LogIndex>();
  if (in.at_end()) return std::optional(last);
  return fail(Code::kCorrupt,
              fmt::format("{}/{}: expected 8 bytes, found {}", folder->path(), kJoiningFile, bytes.size()));
}

Result<std::optional<LogIndex>> end_before_joins(store::Store& store, std::string_view parent) {
  std::optional<LogIndex> end;
  for (const std::string& name : TRY(unfinished_joins(store, parent))) {
    auto last = TRY(end_before_join(store, name));
    if (last) end = std::min(end.value_or(*last), *last);
  }
  return end;
}

Result<Branch> find_branch(store::Store& store, std::string_view name) {
  TRY(store::Store::check_name("branch", name));
  if (TRY(is_there(store, name))) return read_branch(store, name);
  if (in_memory(store))
    return fail(Code::kNotFound, fmt::format("{}: there is no branch {}", name_of(store), name));
  return fail(
      Code::kNotFound,
      fmt::format(
          "{0}: there is no branch {1} (`reprise branches {0}` lists them, `reprise fork {0} {1}` makes one)",
          store.path(), name));
}

Status check_not_joining(store::Store& store, const Branch& branch) {
  if (!branch.joining) return {};
  return fail(
      Code::kInvalidArgument,
      fmt::format("{0}: expected a branch to work on, found that a join of {1} into {2} was interrupted; "
                  "`reprise join {0} {1}` finishes it",
                  store.path(), branch.name, branch.fork->parent));
}

Status check_has_no_forks(store::Store& store, std::string_view name) {
  std::string forks;
  for (const Branch& branch : TRY(list_branches(store))) {
    if (branch.fork && branch.fork->parent == name) forks += (forks.empty() ? "" : ", ") + branch.name;
  }
  if (forks.empty()) return {};
  return fail(
      Code::kInvalidArgument,
      fmt::format("{}: expected a branch without forks of its own, found that {} has {}: join or discard "
                  "those first",
                  name_of(store), name, forks));
}

Status begin_joining(store::Store& store, std::string_view name, LogIndex last) {
  if (in_memory(store)) return {};
  Bytes bytes;
  append_value(bytes, last);
  return TRY(store.branch_directory(name))->replace_file(kJoiningFile, bytes);
}

Status remove_branch(store::Store& store, std::string_view name) {
  TRY(store.catalogue().remove_branch(name));
  // From here on it is not there, whatever is left of it.
  if (auto folder = TRY(store.branch_directory(name)); folder != nullptr && TRY(folder->exists(kForkFile))) {
    TRY(folder->unlink(kForkFile));
    TRY(folder->sync());
  }
  TRY(forget(store, name));
  return store.remove_branch_directory(name);
}

Status discard_branch(store::Store& store, std::string_view name, const store::LockHolder& holder,
                      bool half_joined) {
  if (name == kMainBranch)
    return fail(Code::kInvalidArgument,
                "expected a branch that was forked, found main, which is the volume itself");
  auto usable = [&]() -> Status {
    auto branch = find_branch(store, name);
    if (!branch && !is_unreadable(branch.error())) return std::unexpected(branch.error());
    return branch && !half_joined ? check_not_joining(store, *branch) : Status{};
  };
  TRY(usable());
  auto lock = TRY(store.lock_branch(name, holder));
  TRY(usable());
  TRY(check_has_no_forks(store, name));
  return remove_branch(store, name);
}

}  // namespace reprise::instance
