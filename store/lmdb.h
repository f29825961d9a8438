// Lmdb: the one class that touches LMDB. An environment of named tables in one file, transactions with the
// map grown when it is full or when another process grew it. No I/O of ours; LMDB does its own.
//
// Opened to read it writes nothing, if it can: only its slot in the table of readers, LMDB's own lock file.
// Where that may not be written (another user's store, a disk that is read-only) it reads without a slot: a
// writer then does not know of the reader, and may use pages again that it still needs. It does so, LMDB's
// rule being that a transaction reuses only what two transactions before it had given up, no sooner than in
// the third commit after the reader began. So without a slot every step of a read checks that at most one
// transaction was committed since; if more were, what was read is not used, and the read begins anew.
//
// One environment a process and file (LMDB's rule: its locks are the process's); a second open is kBusy. Not
// to be used across fork(2). Threads: any; a transaction lives inside one call of read() or write().
#pragma once

#include <lmdb.h>

#include <functional>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "store/catalogue.h"

namespace reprise::store {

class Lmdb {
 public:
  // What goes on inside one transaction. Byte views are valid until the transaction ends or writes.
  class Transaction {
   public:
    Result<std::optional<ByteView>> get(size_t table, ByteView key);
    Status put(size_t table, ByteView key, ByteView value);
    Result<bool> remove(size_t table, ByteView key);  // was it there?
    // In order of key, byte by byte.
    Status for_each(size_t table, const std::function<Status(ByteView key, ByteView value)>& visit);

   private:
    friend class Lmdb;
    Transaction(Lmdb& lmdb, MDB_txn* txn) : lmdb_(lmdb), txn_(txn) {}
    std::unexpected<Error> failed(int code, std::string_view doing);
    Status check_not_overtaken();
    Lmdb& lmdb_;
    MDB_txn* txn_;
    bool map_full_ = false;
  };
  using Work = std::function<Status(Transaction&)>;

  // To read: null if there is no such file, or nothing in it, or none of the tables yet.
  static Result<std::unique_ptr<Lmdb>> open(const std::string& path, Access access,
                                            const std::vector<const char*>& tables, size_t map_bytes);
  ~Lmdb();

  // Work may be run again from its beginning, as in write().
  Status read(const Work& work);
  // Runs work and commits, durably; nothing of it happens if it fails. Work may be run again, from its
  // beginning, when the map had to grow: it must set, not add to, what it captures.
  Status write(const Work& work);
  const std::string& path() const { return path_; }

 private:
  struct OpenPath;  // this process's claim on the file
  Lmdb(std::string path, std::unique_ptr<OpenPath> claim);
  static Result<bool> check_file(const std::string& path);
  Status prepare(Access access, size_t map_bytes);
  Result<int> open_environment(unsigned flags, size_t map_bytes);
  // False if they are not there and were not to be made.
  Result<bool> open_tables(const std::vector<const char*>& tables, Access access);
  Result<MDB_txn*> begin(unsigned flags, std::shared_lock<std::shared_mutex>& lock);
  Status grow();
  std::unexpected<Error> failed(int code, std::string_view doing) const;

  const std::string path_;
  std::unique_ptr<OpenPath> claim_;
  MDB_env* env_ = nullptr;
  bool read_only_ = false;
  bool without_slot_ = false;  // no entry in the table of readers
  std::vector<MDB_dbi> tables_;
  std::shared_mutex map_;  // shared: a transaction is open; exclusive: the map is being resized
};

}  // namespace reprise::store
