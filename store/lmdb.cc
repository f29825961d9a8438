#include "store/lmdb.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <mutex>
#include <set>
#include <utility>

#include "base/disk.h"
#include "base/host_tree.h"
#include "store/lmdb_check.h"

namespace reprise::store {
namespace {

constexpr uint64_t kLockFileBytes = 8 << 10;  // what LMDB makes of it, for 126 readers

MDB_val to_mdb(ByteView bytes) {
  return {bytes.size(), const_cast<std::byte*>(bytes.data())};
}
ByteView from_mdb(const MDB_val& value) {
  return {static_cast<const std::byte*>(value.mv_data), value.mv_size};
}

struct CursorDeleter {
  void operator()(MDB_cursor* cursor) const { mdb_cursor_close(cursor); }
};

// LMDB answers EIO where a write was cut short, and not only where the disk said so. That is a disk which
// filled up on the way: what an error cuts short is not written at all, or the next write tells of it.
template <class Call>
int calling_short_writes_no_space(const Call& call) {
  errno = 0;
  const int code = call();
  return code == EIO && errno != EIO ? ENOSPC : code;
}

// Ends a transaction unless it was committed.
class TransactionGuard {
 public:
  explicit TransactionGuard(MDB_txn* txn) : txn_(txn) {}
  ~TransactionGuard() {
    if (txn_ != nullptr) mdb_txn_abort(txn_);
  }
  TransactionGuard(const TransactionGuard&) = delete;
  TransactionGuard& operator=(const TransactionGuard&) = delete;
  int commit() {
    return calling_short_writes_no_space([&] { return mdb_txn_commit(std::exchange(txn_, nullptr)); });
  }

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

// Has it been begun? What would end the process if it were mapped is refused.
Result<bool> Lmdb::check_file(const std::string& path) {
  size_t slash = path.rfind('/');
  auto folder = TRY(open_host_directory(slash == std::string::npos ? "."
                                        : slash == 0               ? "/"
                                                                   : path.substr(0, slash)));
  auto file = folder->open(path.substr(slash == std::string::npos ? 0 : slash + 1), OpenMode::kRead);
  if (!file && file.error().code() == Code::kNotFound) return false;
  if (!file) return std::unexpected(file.error());
  if (TRY((*file)->size()) == 0) return false;  // whoever was to begin it was killed, or is about to
  TRY(check_lmdb(**file));
  return true;
}

Result<std::unique_ptr<Lmdb>> Lmdb::open(const std::string& path, Access access,
                                         const std::vector<const char*>& tables, size_t map_bytes) {
  auto claim = OpenPath::claim(path);
  if (claim == nullptr) {
    return fail(Code::kBusy, path + ": expected to be opened once in this process, found it open already");
  }
  for (const std::string& name : {path, path + "-lock"}) TRY(check_is_file(name));
  bool begun = TRY(check_file(path));
  if (!begun && access == Access::kRead) return nullptr;
  // LMDB maps its lock file and writes to the map: without blocks of its own a full disk would end the
  // process.
  TRY(reserve_file_blocks(path + "-lock", kLockFileBytes));
  std::unique_ptr<Lmdb> lmdb(new Lmdb(path, std::move(claim)));
  TRY(lmdb->prepare(access, map_bytes));
  if (!TRY(lmdb->open_tables(tables, access))) return nullptr;
  return lmdb;
}

// LMDB's answer: an environment that could not be opened must be closed and made anew.
Result<int> Lmdb::open_environment(unsigned flags, size_t map_bytes) {
  if (env_ != nullptr) mdb_env_close(std::exchange(env_, nullptr));
  constexpr MDB_dbi kMaxTables = 16;
  if (int code = mdb_env_create(&env_)) return failed(code, "open");
  if (int code = mdb_env_set_maxdbs(env_, kMaxTables)) return failed(code, "open");
  if (int code = mdb_env_set_mapsize(env_, map_bytes)) return failed(code, "open");
  int code = mdb_env_open(env_, path_.c_str(), MDB_NOSUBDIR | MDB_NOTLS | flags, 0644);
  // Not for the programs that this process starts; of the lock file LMDB sees to that itself.
  if (mdb_filehandle_t fd = -1; code == 0 && mdb_env_get_fd(env_, &fd) == 0) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  return code;
}

Status Lmdb::prepare(Access access, size_t map_bytes) {
  read_only_ = access == Access::kRead;
  int code = TRY(open_environment(read_only_ ? MDB_RDONLY : 0, map_bytes));
  if (read_only_ && (code == EACCES || code == EROFS || code == EPERM)) {
    without_slot_ = true;
    code = TRY(open_environment(MDB_RDONLY | MDB_NOLOCK, map_bytes));
  }
  if (code != 0) return failed(code, "open");
  if (read_only_) {
    // On a disk that is read-only LMDB leaves the lock file away by itself; then nobody writes beside us.
    return {};
  }
  int dead_readers;  // of processes that were killed; they would keep old pages from being used again
  if (int checked = mdb_reader_check(env_, &dead_readers)) return failed(checked, "open");
  return {};
}

Result<bool> Lmdb::open_tables(const std::vector<const char*>& tables, Access access) {
  tables_.resize(tables.size());
  // Reading first: another process may be writing, and opening must not wait for it once the tables are
  // there.
  for (unsigned flags : {unsigned{MDB_RDONLY}, 0u}) {
    if (flags == 0 && access == Access::kRead) return false;
    size_t missing = 0;
    std::shared_lock<std::shared_mutex> lock;
    MDB_txn* handle = TRY(begin(flags, lock));
    TransactionGuard guard(handle);
    for (size_t i = 0; i < tables.size(); i++) {
      int code = mdb_dbi_open(handle, tables[i], flags == 0 ? MDB_CREATE : 0, &tables_[i]);
      if (code == MDB_NOTFOUND)
        ++missing;
      else if (code != 0)
        return failed(code, "open a table of");
    }
    if (missing == tables.size()) continue;
    // They are made together: one by itself has not gone without damage.
    if (missing > 0)
      return fail(Code::kCorrupt,
                  fmt::format("{}: expected {} tables, found {} missing", path_, tables.size(), missing));
    if (int code = guard.commit()) return failed(code, "write");  // also what makes the handles last
    return true;
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

// Readers of processes that were killed keep old pages from being used again: perhaps all that is missing.
Status Lmdb::grow() {
  std::unique_lock resizing(map_);
  int dead_readers;
  if (int code = mdb_reader_check(env_, &dead_readers)) return failed(code, "grow");
  MDB_envinfo info;
  if (int code = mdb_env_info(env_, &info)) return failed(code, "grow");
  if (int code = mdb_env_set_mapsize(env_, info.me_mapsize * 2)) return failed(code, "grow");
  return {};
}

Status Lmdb::read(const Work& work) {
  constexpr int kTries = 100;
  for (int tries = 0; tries < kTries; ++tries) {
    std::shared_lock<std::shared_mutex> lock;
    MDB_txn* handle = TRY(begin(MDB_RDONLY, lock));
    TransactionGuard guard(handle);
    Transaction transaction(*this, handle);
    Status done = work(transaction);
    if (transaction.check_not_overtaken()) return done;
  }
  return fail(Code::kBusy,
              fmt::format("{}: cannot read: it is being written, and this user may not lock it", path_));
}

Status Lmdb::write(const Work& work) {
  if (read_only_) return fail(Code::kReadOnly, path_ + ": opened to be read, found something to write");
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

// What was read of the map holds if it still is as it was when the transaction began.
Status Lmdb::Transaction::check_not_overtaken() {
  if (!lmdb_.without_slot_) return {};
  MDB_envinfo info;
  if (int code = mdb_env_info(lmdb_.env_, &info)) return lmdb_.failed(code, "read");
  if (info.me_last_txnid <= mdb_txn_id(txn_) + 1) return {};
  return lmdb_.failed(MDB_BAD_TXN, "read");
}

Result<std::optional<ByteView>> Lmdb::Transaction::get(size_t table, ByteView key) {
  MDB_val k = to_mdb(key), v;
  int code = mdb_get(txn_, lmdb_.tables_[table], &k, &v);
  TRY(check_not_overtaken());
  if (code == MDB_NOTFOUND) return std::nullopt;
  if (code != 0) return failed(code, "read");
  return from_mdb(v);
}

Status Lmdb::Transaction::put(size_t table, ByteView key, ByteView value) {
  MDB_val k = to_mdb(key), v = to_mdb(value);
  // A large transaction is written in part before its end.
  int code = calling_short_writes_no_space([&] { return mdb_put(txn_, lmdb_.tables_[table], &k, &v, 0); });
  if (code != 0) return failed(code, "write");
  return {};
}

Result<bool> Lmdb::Transaction::remove(size_t table, ByteView key) {
  MDB_val k = to_mdb(key);
  int code = calling_short_writes_no_space([&] { return mdb_del(txn_, lmdb_.tables_[table], &k, nullptr); });
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
  for (; code == 0; code = mdb_cursor_get(handle, &k, &v, MDB_NEXT)) {
    TRY(check_not_overtaken());
    TRY(visit(from_mdb(k), from_mdb(v)));
  }
  TRY(check_not_overtaken());
  if (code != MDB_NOTFOUND) return failed(code, "read");
  return {};
}

}  // namespace reprise::store
