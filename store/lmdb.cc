#include "store/lmdb.h"

#include <fmt/format.h>

#include <cerrno>
#include <mutex>
#include <set>
#include <utility>

#include "base/host_tree.h"

namespace reprise::store {
namespace {

MDB_val to_mdb(ByteView bytes) {
  return {bytes.size(), const_cast<std::byte*>(bytes.data())};
}
ByteView from_mdb(const MDB_val& value) {
  return {static_cast<const std::byte*>(value.mv_data), value.mv_size};
}

struct CursorDeleter {
  void operator()(MDB_cursor* cursor) const { mdb_cursor_close(cursor); }
};

// Ends a transaction unless it was committed.
class TransactionGuard {
 public:
  explicit TransactionGuard(MDB_txn* txn) : txn_(txn) {}
  ~TransactionGuard() {
    if (txn_ != nullptr) mdb_txn_abort(txn_);
  }
  TransactionGuard(const TransactionGuard&) = delete;
  TransactionGuard& operator=(const TransactionGuard&) = delete;
  int commit() { return mdb_txn_commit(std::exchange(txn_, nullptr)); }

 private:
  MDB_txn* txn_;
};

}  // namespace

struct Lmdb::OpenPath {
  static std::mutex mutex;
  static std::set<std::string> open;
  std::string path;

  // Null if the path is claimed.
  static std::unique_ptr<OpenPath> claim(const std::string& path) {
    std::string canonical = canonical_host_path(path);
    std::lock_guard lock(mutex);
    if (!open.insert(canonical).second) return nullptr;
    return std::unique_ptr<OpenPath>(new OpenPath{canonical});
  }
  ~OpenPath() {
    std::lock_guard lock(mutex);
    open.erase(path);
  }
};
std::mutex Lmdb::OpenPath::mutex;
std::set<std::string> Lmdb::OpenPath::open;

Lmdb::Lmdb(std::string path, std::unique_ptr<OpenPath> claim)
    : path_(std::move(path)), claim_(std::move(claim)) {}

Lmdb::~Lmdb() {
  if (env_ != nullptr) mdb_env_close(env_);
}

std::unexpected<Error> Lmdb::failed(int code, std::string_view doing) const {
  std::string what = fmt::format("{}: cannot {}", path_, doing);
  if (code > 0) return std::unexpected(Error::from_errno(code, what));
  bool corrupt = code == MDB_CORRUPTED || code == MDB_INVALID || code == MDB_PAGE_NOTFOUND ||
                 code == MDB_PANIC || code == MDB_INCOMPATIBLE || code == MDB_BAD_VALSIZE ||
                 code == MDB_BAD_TXN;
  Code kind = corrupt ? Code::kCorrupt : code == MDB_VERSION_MISMATCH ? Code::kUnsupported : Code::kIo;
  return fail(kind, fmt::format("{}: {}", what, mdb_strerror(code)));
}

Result<std::unique_ptr<Lmdb>> Lmdb::open(const std::string& path, const std::vector<const char*>& tables,
                                         size_t map_bytes) {
  auto claim = OpenPath::claim(path);
  if (claim == nullptr) {
    return fail(Code::kBusy, path + ": expected to be opened once in this process, found it open already");
  }
  std::unique_ptr<Lmdb> lmdb(new Lmdb(path, std::move(claim)));
  TRY(lmdb->prepare(tables, map_bytes));
  return lmdb;
}

Status Lmdb::prepare(const std::vector<const char*>& tables, size_t map_bytes) {
  if (int code = mdb_env_create(&env_)) return failed(code, "open");
  if (int code = mdb_env_set_maxdbs(env_, static_cast<MDB_dbi>(tables.size()))) return failed(code, "open");
  if (int code = mdb_env_set_mapsize(env_, map_bytes)) return failed(code, "open");
  if (int code = mdb_env_open(env_, path_.c_str(), MDB_NOSUBDIR | MDB_NOTLS, 0644))
    return failed(code, "open");
  int dead_readers;  // of processes that were killed; they would keep old pages from being used again
  if (int code = mdb_reader_check(env_, &dead_readers)) return failed(code, "open");
  tables_.resize(tables.size());
  // Reading first: another process may be writing, and opening must not wait for it once the tables are
  // there.
  bool missing = false;
  for (unsigned flags : {unsigned{MDB_RDONLY}, 0u}) {
    missing = false;
    std::shared_lock<std::shared_mutex> lock;
    MDB_txn* handle = TRY(begin(flags, lock));
    TransactionGuard guard(handle);
    for (size_t i = 0; i < tables.size() && !missing; i++) {
      int code = mdb_dbi_open(handle, tables[i], flags == 0 ? MDB_CREATE : 0, &tables_[i]);
      if (code == MDB_NOTFOUND)
        missing = true;
      else if (code != 0)
        return failed(code, "open a table of");
    }
    if (missing) continue;
    if (int code = guard.commit()) return failed(code, "write");  // also what makes the handles last
    return {};
  }
  return fail(Code::kCorrupt, path_ + ": expected its tables, found some missing");
}

Result<MDB_txn*> Lmdb::begin(unsigned flags, std::shared_lock<std::shared_mutex>& lock) {
  for (;;) {
    lock = std::shared_lock(map_);
    MDB_txn* txn = nullptr;
    int code = mdb_txn_begin(env_, nullptr, flags, &txn);
    if (code == 0) return txn;
    if (code != MDB_MAP_RESIZED) return failed(code, (flags & MDB_RDONLY) != 0 ? "read" : "write");
    lock.unlock();
    std::unique_lock resizing(map_);
    if (int resized = mdb_env_set_mapsize(env_, 0))
      return failed(resized, "map");  // 0: as another process made it
  }
}

Status Lmdb::grow() {
  std::unique_lock resizing(map_);
  MDB_envinfo info;
  if (int code = mdb_env_info(env_, &info)) return failed(code, "grow");
  if (int code = mdb_env_set_mapsize(env_, info.me_mapsize * 2)) return failed(code, "grow");
  return {};
}

Status Lmdb::read(const Work& work) {
  std::shared_lock<std::shared_mutex> lock;
  MDB_txn* handle = TRY(begin(MDB_RDONLY, lock));
  TransactionGuard guard(handle);
  Transaction transaction(*this, handle);
  return work(transaction);
}

Status Lmdb::write(const Work& work) {
  for (;;) {
    {
      std::shared_lock<std::shared_mutex> lock;
      MDB_txn* handle = TRY(begin(0, lock));
      TransactionGuard guard(handle);
      Transaction transaction(*this, handle);
      Status done = work(transaction);
      if (!transaction.map_full_) {
        if (!done) return done;
        int code = guard.commit();
        if (code == 0) return {};
        if (code != MDB_MAP_FULL) return failed(code, "write");
      }
    }
    TRY(grow());
  }
}

std::unexpected<Error> Lmdb::Transaction::failed(int code, std::string_view doing) {
  if (code == MDB_MAP_FULL) map_full_ = true;
  return lmdb_.failed(code, doing);
}

Result<std::optional<ByteView>> Lmdb::Transaction::get(size_t table, ByteView key) {
  MDB_val k = to_mdb(key), v;
  int code = mdb_get(txn_, lmdb_.tables_[table], &k, &v);
  if (code == MDB_NOTFOUND) return std::nullopt;
  if (code != 0) return failed(code, "read");
  return from_mdb(v);
}

Status Lmdb::Transaction::put(size_t table, ByteView key, ByteView value) {
  MDB_val k = to_mdb(key), v = to_mdb(value);
  if (int code = mdb_put(txn_, lmdb_.tables_[table], &k, &v, 0)) return failed(code, "write");
  return {};
}

Result<bool> Lmdb::Transaction::remove(size_t table, ByteView key) {
  MDB_val k = to_mdb(key);
  int code = mdb_del(txn_, lmdb_.tables_[table], &k, nullptr);
  if (code == MDB_NOTFOUND) return false;
  if (code != 0) return failed(code, "write");
  return true;
}

Status Lmdb::Transaction::for_each(size_t table, const std::function<Status(ByteView, ByteView)>& visit) {
  MDB_cursor* handle = nullptr;
  if (int code = mdb_cursor_open(txn_, lmdb_.tables_[table], &handle)) return failed(code, "read");
  std::unique_ptr<MDB_cursor, CursorDeleter> cursor(handle);
  MDB_val k, v;
  int code = mdb_cursor_get(handle, &k, &v, MDB_FIRST);
  for (; code == 0; code = mdb_cursor_get(handle, &k, &v, MDB_NEXT)) TRY(visit(from_mdb(k), from_mdb(v)));
  if (code != MDB_NOTFOUND) return failed(code, "read");
  return {};
}

}  // namespace reprise::store
