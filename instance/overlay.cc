#include "instance/overlay.h"

#include <fmt/format.h>

#include "instance/snapshots.h"
#include "journal/position.h"
#include "snapshot/rest_on_directory.h"
#include "store/host_source.h"

namespace reprise::instance {
namespace {

// The state that the directory is counts as one batch of a writer who never writes again: so the history has
// a beginning that a journal can follow.
constexpr LogIndex kBaseIndex = 1;
constexpr uint64_t kBaseLamport = 1;

Result<OverlayMade> fill(store::Store& store, const std::string& directory, Clock& clock, Random& random,
                         const snapshot::ImportProgress& progress) {
  store::BaseDirectory base{.path = directory, .snapshot = 0, .time = clock.realtime()};
  TRY(store.set_base_directory(base));
  auto source = TRY(store.source());
  auto rested = TRY(snapshot::rest_on_directory(source, clock, progress));
  rested.head.settle();
  journal::Vector vector;
  vector.set(random.next_id<OriginId>(), 1);
  store::SnapshotRecord record;
  record.branch = "main";
  record.label = fmt::format("base {}", printable(directory)).substr(0, 200);
  record.time = base.time;
  record.log_index = kBaseIndex;
  record.vector = vector.encode();
  record.digest = rested.head.digest();
  record.lamport = kBaseLamport;
  base.snapshot = TRY(capture_snapshot(store, rested.head.view(), record)).id;
  TRY(store.journal_directory("main"));
  TRY(store.set_base_directory(base));
  return OverlayMade{rested.entries, rested.files, rested.bytes, std::move(rested.unreadable)};
}

}  // namespace

Result<OverlayMade> make_overlay(const std::string& path, const std::string& directory, Clock& clock,
                                 Random& random, const snapshot::ImportProgress& progress) {
  auto store = TRY(store::Store::create(path, random.next_id<VolumeId>()));
  auto made = fill(*store, directory, clock, random, progress);
  store.reset();
  if (made) return made;
  auto removed = store::Store::remove_unused(path);
  if (removed) return made;
  return std::unexpected(made.error().with_context(removed.error().message()));
}

Result<store::BaseDirectory> overlay_directory(store::Store& store) {
  auto base = TRY(store.base_directory());
  if (!base)
    return fail(
        Code::kInvalidArgument,
        fmt::format("{}: expected a store that rests on a directory (`reprise run --from DIR`), found "
                    "one that has everything itself",
                    store.path()));
  if (base->snapshot == 0)
    return fail(Code::kCorrupt, fmt::format("{}: expected an overlay over {}, found one whose making was "
                                            "interrupted; `reprise discard` takes it away",
                                            store.path(), printable(base->path)));
  return *base;
}

Result<fs::Head> overlay_base(store::Store& store) {
  const store::BaseDirectory base = TRY(overlay_directory(store));
  for (const store::SnapshotRecord& record : TRY(store.catalogue().snapshots()))
    if (record.id == base.snapshot) return load_snapshot(store, record);
  return fail(Code::kNotFound,
              fmt::format("{}: snapshot {}, which {} was when the overlay began, has been deleted",
                          store.path(), base.snapshot, printable(base.path)));
}

}  // namespace reprise::instance
