// Group commit: guests of one instance, a thread each, that append 100 bytes to a file of their own and
// fsync it, again and again. Against the same threads that insert a row of 100 bytes into one SQLite database
// (synchronous=FULL, a connection each), or put 100 bytes into one LMDB environment, a transaction each. All
// on the disk of the temporary folder. Time is that of one operation, whichever thread's.
#include <fcntl.h>
#include <fmt/format.h>
#include <lmdb.h>
#include <sqlite3.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/check.h"
#include "bench/paired.h"
#include "bench/scratch_folder.h"
#include "fs/guest.h"
#include "instance/instance.h"

namespace reprise::bench {
namespace {

constexpr size_t kPayload = 100;
constexpr int kOperations = 192;  // of all threads together

// ns an operation. `work` does `count` operations as thread number `thread`.
template <class Work>
double in_threads(int threads, const Work& work) {
  return timed(kOperations, [&] {
    std::vector<std::jthread> running;
    running.reserve(static_cast<size_t>(threads));
    for (int thread = 0; thread < threads; ++thread)
      running.emplace_back([&, thread] { work(thread, kOperations / threads); });
  });
}

double reprise(int threads) {
  ScratchFolder place;
  std::shared_ptr<store::Store> store =
      *store::Store::create(place / "store", system_random().next_id<VolumeId>());
  auto instance = *instance::Instance::open(store, {});
  auto on_sync = [&]() -> fs::Outcome<void> {
    if (!instance->guest_sync()) return fs::errno_of(EIO);
    return {};
  };
  const Bytes payload(kPayload, std::byte{'x'});
  double ns = in_threads(threads, [&](int thread, int count) {
    fs::Guest guest(instance->filesystem(), {.label = fmt::format("guest {}", thread), .on_sync = on_sync});
    int fd = *guest.open(fmt::format("/log-{}", thread), O_CREAT | O_WRONLY | O_APPEND);
    for (int i = 0; i < count; ++i) {
      CHECK(guest.write(fd, payload));
      CHECK(guest.fsync(fd));
    }
  });
  CHECK(instance->close());
  return ns;
}

void must(sqlite3* database, const char* sql) {
  CHECK(sqlite3_exec(database, sql, nullptr, nullptr, nullptr) == SQLITE_OK);
}

double sqlite(int threads, const char* journal_mode) {
  ScratchFolder place;
  std::string path = place / "database";
  auto connect = [&] {
    sqlite3* database = nullptr;
    CHECK(sqlite3_open(path.c_str(), &database) == SQLITE_OK);
    sqlite3_busy_timeout(database, 60'000);
    must(database, "PRAGMA synchronous=FULL");
    return database;
  };
  sqlite3* first = connect();
  must(first, fmt::format("PRAGMA journal_mode={}; CREATE TABLE log (bytes BLOB)", journal_mode).c_str());
  const std::string payload(kPayload, 'x');
  double ns = in_threads(threads, [&](int, int count) {
    sqlite3* database = connect();
    sqlite3_stmt* insert = nullptr;
    CHECK(sqlite3_prepare_v2(database, "INSERT INTO log VALUES (?)", -1, &insert, nullptr) == SQLITE_OK);
    for (int i = 0; i < count; ++i) {
      sqlite3_bind_blob(insert, 1, payload.data(), kPayload, SQLITE_STATIC);
      CHECK(sqlite3_step(insert) == SQLITE_DONE);
      sqlite3_reset(insert);
    }
    sqlite3_finalize(insert);
    sqlite3_close(database);
  });
  sqlite3_close(first);
  return ns;
}

double lmdb(int threads) {
  ScratchFolder place;
  MDB_env* environment = nullptr;
  CHECK(mdb_env_create(&environment) == 0);
  CHECK(mdb_env_set_mapsize(environment, 64 << 20) == 0);
  CHECK(mdb_env_open(environment, (place / "lmdb").c_str(), MDB_NOSUBDIR, 0600) == 0);
  std::string payload(kPayload, 'x');
  double ns = in_threads(threads, [&](int thread, int count) {
    for (int i = 0; i < count; ++i) {
      MDB_txn* transaction = nullptr;
      MDB_dbi database;
      CHECK(mdb_txn_begin(environment, nullptr, 0, &transaction) == 0);
      CHECK(mdb_dbi_open(transaction, nullptr, 0, &database) == 0);
      uint64_t number = static_cast<uint64_t>(i) * 64 + static_cast<uint64_t>(thread);
      MDB_val key{sizeof number, &number}, value{payload.size(), payload.data()};
      CHECK(mdb_put(transaction, database, &key, &value, 0) == 0);
      CHECK(mdb_txn_commit(transaction) == 0);
    }
  });
  mdb_env_close(environment);
  return ns;
}

void measure(Pairs& pairs, int threads, bool ours_first) {
  auto ours = [&] {
    double ns = reprise(threads);
    for (const char* row : {"sqlite_wal", "sqlite_rollback", "lmdb"}) pairs[row].ours.push_back(ns);
  };
  if (ours_first) ours();
  pairs["sqlite_wal"].other.push_back(sqlite(threads, "WAL"));
  pairs["sqlite_rollback"].other.push_back(sqlite(threads, "DELETE"));
  pairs["lmdb"].other.push_back(lmdb(threads));
  if (!ours_first) ours();
}

const bool registered = [] {
  for (int threads : {1, 4, 16}) {
    register_pairs(fmt::format("group_commit/guests:{}", threads), {"sqlite_wal", "sqlite_rollback", "lmdb"},
                   5, [threads](Pairs& pairs, bool ours_first) { measure(pairs, threads, ours_first); });
  }
  return true;
}();

}  // namespace
}  // namespace reprise::bench
