#include "replay/replayer.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.h"

namespace reprise::replay {
namespace {

// One view is taken per group, so a group bounds both how often nodes are copied and how much is done again
// on an error.
constexpr size_t kGroupBatches = 256;
constexpr size_t kGroupBytes = 8 << 20;

std::string name_of(const journal::BatchHeader& header) {
  return fmt::format("batch {} of origin {}", header.lsn, header.origin.to_short_string());
}

struct Failure {
  size_t operation;  // from 1
  std::string_view kind;
  fs::Errno code{};
  OriginId claimed_by{};  // a prefix that is another's, instead of an errno
};

// `claims` may be null, for what was applied before.
std::optional<Failure> apply_operations(fs::Head& head, const journal::Batch& batch, Claims* claims) {
  std::optional<Failure> failure;
  std::vector<uint64_t> claimed;
  size_t number = 0;
  const journal::BatchHeader& header = batch.header();
  if (claims && header.kind == journal::BatchKind::kOriginStart) claims->begin_stream(header);
  batch.for_each([&](const fs::Operation& operation) {
    if (failure) return;
    ++number;
    if (const auto* claim = std::get_if<fs::ClaimPrefix>(&operation); claim && claims) {
      if (auto other = claims->refused(claim->prefix, header)) {
        failure = Failure{.operation = number, .kind = fs::operation_name(operation), .claimed_by = *other};
        return;
      }
      if (claimed.size() < Claims::kRememberedMax) claimed.push_back(claim->prefix);
    }
    if (fs::Outcome<void> done = head.apply(operation); !done)
      failure = Failure{number, fs::operation_name(operation), done.error()};
  });
  if (failure) return failure;
  for (uint64_t prefix : claimed) claims->note(prefix, header.origin);
  return std::nullopt;
}

Error error_of(const journal::Batch& batch, const Failure& failure) {
  std::string where = fmt::format("{}: operation {} of {} ({})", name_of(batch.header()), failure.operation,
                                  batch.operation_count(), failure.kind);
  if (failure.claimed_by) {
    return Error(
        Code::kCorrupt,
        fmt::format("{} claims inode ids that origin {} has claimed, of which this one does not know: "
                    "expected writers one after the other, found two at once",
                    where, failure.claimed_by.to_short_string()));
  }
  // Of the tree something could not be loaded; that is no difference between trees.
  return Error(failure.code == fs::Errno{EIO} ? Code::kIo : Code::kDivergence,
               fmt::format("{} cannot be applied to this tree: {}", where, fs::errno_text(failure.code)));
}

}  // namespace

Result<Replayer::Verdict> Replayer::judge(const journal::BatchHeader& header) const {
  using journal::BatchKind;
  if (!header.origin || header.lsn == 0)
    return fail(Code::kCorrupt, name_of(header) + ": expected an origin and an LSN from 1");
  if (header.kind == BatchKind::kCompacted)
    return fail(Code::kUnsupported,
                name_of(header) + ": is the difference of two trees, which this version cannot apply");
  Lsn have = applied_.get(header.origin);
  if (header.lsn <= have) return Verdict::kAlreadyApplied;
  if (header.lsn != have + 1)
    return fail(Code::kGap, fmt::format("{}: expected LSN {}, so {} to {} are missing", name_of(header),
                                        have + 1, have + 1, header.lsn - 1));
  for (const auto& [origin, lsn] : header.dependencies) {
    if (origin != header.origin && applied_.get(origin) < lsn)
      return fail(Code::kGap,
                  fmt::format("{}: depends on LSN {} of origin {}, of which only {} is applied",
                              name_of(header), lsn, origin.to_short_string(), applied_.get(origin)));
  }
  if (header.lamport > lamport_ && header.lamport - lamport_ > kLamportJumpMax)
    return fail(Code::kCorrupt, fmt::format("{}: its Lamport time {} is more than 2^32 after {}",
                                            name_of(header), header.lamport, lamport_));
  return Verdict::kNext;
}

void Replayer::note(const journal::Batch& batch) {
  const journal::BatchHeader& header = batch.header();
  applied_.set(header.origin, header.lsn);
  lamport_ = std::max(lamport_, header.lamport);
  ++batches_;
  operations_ += batch.operation_count();
}

Status Replayer::apply(fs::Head& head, std::span<const journal::Batch> group) {
  fs::View before = head.view();
  std::vector<const journal::Batch*> done;  // since `before`
  done.reserve(group.size());
  for (const journal::Batch& batch : group) {
    Verdict verdict = TRY(judge(batch.header()));
    if (verdict == Verdict::kAlreadyApplied) {
      ++skipped_;
      continue;
    }
    if (std::optional<Failure> failure = apply_operations(head, batch, &claims_)) {
      head = fs::Head(before);
      // What was applied once to this very tree can be applied again.
      for (const journal::Batch* earlier : done) CHECK(!apply_operations(head, *earlier, nullptr));
      return std::unexpected<Error>(error_of(batch, *failure));
    }
    note(batch);
    done.push_back(&batch);
  }
  return {};
}

Result<ReplayProgress> Replayer::replay(journal::Cursor& cursor, fs::Head& head, LogIndex until,
                                        const std::function<bool(const ReplayProgress&)>& progress,
                                        const std::function<bool(InodeId)>& pinned) {
  ReplayProgress done;
  std::vector<journal::Batch> group;
  bool more = true;
  while (more) {
    group.clear();
    for (size_t bytes = 0; group.size() < kGroupBatches && bytes < kGroupBytes;) {
      std::optional<journal::Logged> next = done.log_index < until ? TRY(cursor.next()) : std::nullopt;
      more = next.has_value() && next->index <= until;
      if (!more) break;
      done.log_index = next->index;
      bytes += next->batch.encoded_bytes();
      group.push_back(std::move(next->batch));
    }
    if (group.empty()) break;

    uint64_t batches = batches_, skipped = skipped_, operations = operations_;
    TRY(apply(head, group));
    done.batches += batches_ - batches;
    done.skipped += skipped_ - skipped;
    done.operations += operations_ - operations;
    for (const journal::Batch& batch : group) done.bytes += batch.encoded_bytes();
    for (InodeId inode : head.take_unlinked())
      if (!pinned || !pinned(inode)) head.remove_unlinked(inode);
    if (progress && !progress(done))
      return fail(Code::kCancelled, fmt::format("replay stopped after batch {}", done.log_index));
  }
  return done;
}

}  // namespace reprise::replay
