// Journal: the log of one branch of one store: every origin's batches in the order they arrived, in segment
// files.
//
// It appends, makes durable, reads back and trims. It does not interpret operations. docs/journal-format.md
// specifies the files. A journal in memory (no Directory) has the same interface and no files.
//
// Threads: every function may be called from any thread. Appending hands the batch to a background thread
// that writes and syncs; readers see a batch as soon as append() returned. One gatherer may hold operations
// back: a reader that has come to the end asks it for them, and the background thread soon. Without threads
// of its own (JournalOptions::threads) whoever waits does the work, and work() what nobody waits for.
//
// Failing disk: after a failed write or sync nothing more is written; reserve(), append() and sync() answer
// the first error from then on (never retried as if nothing had happened). Only a write that failed for want
// of space passes: until what waits could be written, which is tried every now and then, reserve() and sync()
// answer kNoSpace; append() still takes what was let through before, and trim() can make space.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/disk.h"
#include "base/error.h"
#include "base/ids.h"
#include "journal/batch.h"
#include "journal/position.h"

namespace reprise::journal {

enum class Durability {
  kNone,    // memory only until the journal is closed or the segment fills
  kLazy,    // written and synced every lazy_interval_ms
  kFsync,   // written soon; sync() waits for the disk (default)
  kAlways,  // every call that records waits for the disk (Recorder::commit)
};

struct JournalOptions {
  Durability durability = Durability::kFsync;
  uint32_t lazy_interval_ms = 100;
  uint64_t segment_bytes = 64 << 20;  // a new segment begins past this
  uint64_t backlog_bytes = 64 << 20;  // appended and not yet written; reserve() waits beyond it
  uint64_t recent_bytes = 512 << 10;  // written batches kept in memory for readers at the head: few, so that
                                      // what comes next uses memory that is still in the processor's cache
  uint64_t in_memory_bytes = 64 << 20;  // of a journal in memory: where batches take more, the oldest go
  bool compress = true;                 // segments that have ended, in the background, by a thread of its own
  bool threads = true;                  // false: no thread is begun; who owns the journal calls work()
};

struct JournalIdentity {
  VolumeId volume;
  std::string branch;
};

// What a journal takes on the disk.
struct JournalFile {
  LogIndex first_index = 0;  // of the first batch in it, or to come
  uint64_t bytes = 0;
  bool compressed = false;
};
struct JournalFiles {
  std::vector<JournalFile> segments;         // ascending, the last is being written
  uint64_t bytes = 0;                        // of all
  uint64_t waiting = 0;                      // bytes besides that are appended and not yet written
  uint64_t compressed = 0;                   // how many of them are
  bool begins_anew = false;                  // the first one follows nothing: an overwrite began it
  std::optional<Error> compression_failure;  // why no more are
};

// What opening found.
struct Recovery {
  LogIndex first = 0, last = 0;  // of the batches there are; last = first - 1 if there are none
  uint64_t cut_bytes = 0;        // torn tail removed; 0 after a clean close
  std::string cut_file;          // where
  uint64_t cut_offset = 0;
  uint64_t cut_batches = 0;  // that were whole in it, behind the tear: nobody was told that they were safe
  bool clean_close = false;
  bool begins_anew = false;  // the first segment follows nothing: an overwrite began it
};

struct Logged {
  LogIndex index = 0;
  Batch batch;
};

// Who gathers operations before they become a batch (the recorder). Called with no lock of the journal held.
class Gatherer {
 public:
  // Appends what is gathered, now, or at the end of the call that is being recorded.
  virtual void hand_over() = 0;

 protected:
  ~Gatherer() = default;
};

// Reads forward. Own thread's object; the journal must outlive it.
class Cursor {
 public:
  virtual ~Cursor() = default;
  // The next batch; nullopt when there is none yet. kGap if it was trimmed meanwhile, kCorrupt naming file
  // and LSN.
  virtual Result<std::optional<Logged>> next() = 0;
  // Waits until next() would have something, at most timeout_ms; false on timeout or when the journal closes.
  virtual bool wait(uint32_t timeout_ms) = 0;
};

// Of the segments in `directory`, of which nobody has the journal open.
Result<JournalFiles> journal_files(Directory& directory, const JournalIdentity& identity);

class Journal {
 public:
  // Opens the journal in `directory` (made by the caller), or begins one. Repairs a torn tail above what is
  // known to be durable: at least `durable_hint` (the catalogue's mark). Damage below that is kCorrupt,
  // naming file and LSN.
  static Result<std::unique_ptr<Journal>> open(std::unique_ptr<Directory> directory,
                                               const JournalIdentity& identity, const JournalOptions& options,
                                               Random& random, LogIndex durable_hint, Recovery* recovery);
  static std::unique_ptr<Journal> in_memory(const JournalIdentity& identity, const JournalOptions& options);
  virtual ~Journal() = default;  // closes, if close() was not called

  // Waits until so many bytes more, and what is appended and not yet written, stay within the backlog's
  // bound, or nothing is left to write. Who appends calls it first, where waiting holds up nobody else. So
  // the backlog is bounded by that and by one reservation of each thread that appends. The journal's failure.
  virtual Status reserve(uint64_t bytes) = 0;
  // Appends; returns its log index. Never waits, in whatever mode of durability. kInvalidArgument if its LSN
  // is not the next one of its origin.
  virtual Result<LogIndex> append(const Batch& batch) = 0;
  // Null: nobody; returns when no call of the one there was is under way.
  virtual void set_gatherer(Gatherer* gatherer) = 0;
  // The gatherer holds something back. It will be asked for it in a millisecond, `now` at once; with
  // durability `lazy` when the next write is due, with `none` only if `now`. False: nobody but readers will.
  virtual bool expect(bool now) = 0;
  // Is a cursor in wait()? Then an append is what it waits for.
  virtual bool reader_waits() const = 0;
  // Returns when everything up to and including `through` is on the disk, in every mode of durability: who
  // need not wait does not ask. kInvalidArgument past last().
  virtual Status sync(LogIndex through) = 0;
  virtual LogIndex first() const = 0;                // oldest batch still here; last() + 1 if none
  virtual LogIndex last() const = 0;                 // newest, 0 if there never was one
  virtual LogIndex durable() const = 0;              // on the disk up to here
  virtual std::optional<Error> failure() const = 0;  // why it takes nothing more; kNoSpace may pass
  virtual Durability durability() const = 0;
  virtual Result<JournalFiles> files() const = 0;
  // Encoded bytes of the batches from `from` to last().
  virtual Result<uint64_t> bytes_from(LogIndex from) const = 0;
  virtual std::unique_ptr<Cursor> read(LogIndex from) = 0;
  // The first log index such that everything before it is covered by `vector`: where a peer at `vector` must
  // read from. kGap if that has been trimmed.
  virtual Result<LogIndex> position_of(const Vector& vector) = 0;
  // Drops whole segments before `index`; the caller vouches that a durable snapshot covers them. Past last()
  // it drops everything: the last segment is ended and an empty one begun. Returns the new first().
  virtual Result<LogIndex> trim(LogIndex index) = 0;
  // Ends the segment being written and begins another, unless it is empty, or batches come meanwhile: then
  // those will fill it.
  virtual Status end_segment() = 0;
  // The log continues at `next`, which is past last(), with no batches before it: after an overwrite. Drops
  // what there is. `covered` is what the batches before `next` would add up to.
  virtual Status restart_at(LogIndex next, const Vector& covered) = 0;
  // Of a journal without threads: what they would do now, once; to be called every few milliseconds, with
  // none of its callers' locks held. Otherwise nothing.
  virtual void work() {}
  // Takes nothing more from now on, for this reason, as if the disk had failed: what it would take could not
  // be opened again. Until it is opened anew.
  virtual void give_up(const Error& why) = 0;
  // Syncs and marks the close as clean.
  virtual Status close() = 0;
};

}  // namespace reprise::journal
