#include "adapters/fuse/server.h"

#include <fmt/format.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include "adapters/fuse/session.h"
#include "base/check.h"

namespace reprise::fuse {
namespace {

constexpr unsigned kMaxBackgroundRequests = 64;

// Sent to workers that wait for a request, so that they look whether they should stop. Does nothing by
// itself.
int wake_signal() {
  return SIGRTMIN + 5;
}

void install_wake_signal() {
  struct sigaction action = {};
  action.sa_handler = [](int) {};  // without SA_RESTART: read(2) returns EINTR
  CHECK(sigaction(wake_signal(), &action, nullptr) == 0);
}

void use_if_offered(fuse_conn_info* connection, unsigned capability) {
  connection->want |= connection->capable & capability;
}

void on_init(void* userdata, fuse_conn_info* connection) {
  auto& session = *static_cast<Server::Session*>(userdata);
  connection->want = 0;
  use_if_offered(connection, FUSE_CAP_ASYNC_READ);
  use_if_offered(connection, FUSE_CAP_ASYNC_DIO);
  use_if_offered(connection, FUSE_CAP_PARALLEL_DIROPS);
  use_if_offered(connection, FUSE_CAP_READDIRPLUS);
  use_if_offered(connection, FUSE_CAP_READDIRPLUS_AUTO);
  use_if_offered(connection, FUSE_CAP_CACHE_SYMLINKS);
  // Cached bytes go when we say so, not when a size or time looks new: a file that grows keeps what was read
  // of it.
  use_if_offered(connection, FUSE_CAP_EXPLICIT_INVAL_DATA);
  connection->max_background = kMaxBackgroundRequests;
  session.opens_itself_ = (connection->capable & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
  session.opens_directories_itself_ = (connection->capable & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
  session.connected();
}

fuse_lowlevel_ops handlers() {
  fuse_lowlevel_ops table = {};
  table.init = on_init;
  add_name_handlers(table);
  add_attribute_handlers(table);
  add_content_handlers(table);
  add_directory_handlers(table);
  add_xattr_handlers(table);
  return table;
}

bool has(const std::vector<uint32_t>& groups, gid_t group) {
  return std::ranges::find(groups, group) != groups.end();
}

// Where a worker notes itself, for done_with_tree().
thread_local InFlight::Slot* current_slot = nullptr;

}  // namespace

uint64_t RequestCounts::total() const {
  uint64_t sum = 0;
  for (uint32_t opcode = 0; opcode < kOpcodes; ++opcode) {
    if (opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET) sum += of(opcode);
  }
  return sum;
}

Server::Session::Session(fs::Filesystem& filesystem, Clock& clock, ServerOptions options)
    : filesystem_(filesystem),
      clock_(clock),
      options_(std::move(options)),
      owners_(options_.show_all_as),
      lookups_(filesystem),
      in_flight_(options_.workers, clock),
      cache_(filesystem, lookups_, marks_, in_flight_, clock),
      holes_(filesystem, cache_),
      seen_rounds_(options_.workers) {}

Server::Session::~Session() {
  stop();
}

Status Server::Session::start(int fd) {
  static const fuse_lowlevel_ops table = handlers();
  char name[] = "reprise";
  char* argv[] = {name, nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, argv);
  session_ = fuse_session_new(&args, &table, sizeof table, this);
  fuse_opt_free_args(&args);  // which it made its own copy of
  if (session_ == nullptr) {
    ::close(fd);
    return fail(Code::kIo, "libfuse refuses to start a session");
  }
  if (int error = fuse_session_custom_io(session_, &wire_io(), fd); error != 0) {
    ::close(fd);
    return fail(Code::kIo, fmt::format("libfuse refuses descriptor {} as a FUSE device", fd));
  }
  install_wake_signal();
  sigset_t all, before;
  sigfillset(&all);
  sigdelset(&all, wake_signal());
  pthread_sigmask(SIG_SETMASK, &all, &before);  // the host's signals are the host's to handle
  running_ = options_.workers;
  for (size_t i = 0; i < options_.workers; ++i) workers_.emplace_back([this, i] { serve(i); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return {};
}

void Server::Session::stop() {
  if (session_ == nullptr) return;
  // First those who wait for the kernel, which may have something to write back: that takes a worker.
  holes_.stop();
  cache_.disconnect();
  fuse_session_exit(session_);
  wake_and_join();
  fuse_session_destroy(session_);  // closes the descriptor
  session_ = nullptr;
}

// Requests are waiting to be read, or are with a worker. A worker that has looked at round_ since it was
// raised has answered what it had read before; what is answered may let the kernel hand over more, and what
// has just been read is not counted yet. So it takes two rounds in which nothing came.
bool Server::Session::drain(uint64_t timeout_ms) {
  constexpr uint64_t kPause_ns = 200'000;
  const uint64_t end = clock_.monotonic_ns() + timeout_ms * 1'000'000;
  uint64_t counted = counts_.total();
  for (int quiet = 0; quiet < 2;) {
    const uint64_t round = ++round_;
    auto has_answered = [&](const std::atomic<uint64_t>& seen) { return seen.load() >= round; };
    while (running_.load() == workers_.size() && !std::ranges::all_of(seen_rounds_, has_answered)) {
      if (clock_.monotonic_ns() > end) return false;
      for (std::thread& worker : workers_) pthread_kill(worker.native_handle(), wake_signal());
      clock_.sleep_ns(kPause_ns);
    }
    if (running_.load() != workers_.size()) return true;  // the mount is gone
    const bool waiting = has_requests(fuse_session_fd(session_));
    const uint64_t now = counts_.total();
    quiet = waiting || now != counted ? 0 : quiet + 1;
    counted = now;
    if (quiet == 0 && clock_.monotonic_ns() > end) return false;
  }
  return true;
}

// A signal that arrives between a worker's look at the exit flag and its read is lost, so it is sent until
// all have seen the flag.
void Server::Session::wake_and_join() {
  constexpr uint64_t kPause_ns = 500'000;
  while (running_.load() != 0) {
    for (std::thread& worker : workers_) pthread_kill(worker.native_handle(), wake_signal());
    clock_.sleep_ns(kPause_ns);
  }
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void Server::Session::serve(size_t worker) {
  InFlight::Slot& slot = in_flight_.slot(worker);
  current_slot = &slot;
  fuse_buf buffer = {};
  while (!fuse_session_exited(session_)) {
    seen_rounds_[worker].store(round_.load());
    int received = fuse_session_receive_buf(session_, &buffer);
    if (received == -EINTR || received == -EAGAIN) continue;
    if (received <= 0) {
      unmounted_ = true;
      cache_.unmounted();
      break;
    }
    uint32_t opcode = static_cast<const fuse_in_header*>(buffer.mem)->opcode;
    // No handler looks whether it was interrupted. libfuse would keep one whose request has been answered in
    // the meantime, and never let go of the last.
    if (opcode == FUSE_INTERRUPT) continue;
    slot.enter(in_flight_);
    counts_.count(opcode);
    note_request(buffer);
    fuse_session_process_buf(session_, &buffer);
    slot.leave();
  }
  ::free(buffer.mem);
  --running_;
}

void Server::Session::done_with_tree() {
  if (current_slot != nullptr) current_slot->leave();
}

fs::Caller Server::Session::caller_of(fuse_req_t request) const {
  const fuse_ctx* context = fuse_req_ctx(request);
  Owner owner = owners_.journaled({context->uid, context->gid});
  return {.uid = owner.uid, .gid = owner.gid, .groups = {}, .trusted = true, .label = options_.label};
}

// Read from the machine's process table, so only where somebody must know. A process of another pid namespace
// has none that are known here.
std::vector<uint32_t> Server::Session::groups_of(fuse_req_t request) const {
  const fuse_ctx* context = fuse_req_ctx(request);
  std::vector<uint32_t> groups(32);
  for (;;) {
    int count = fuse_req_getgroups(request, static_cast<int>(groups.size()), groups.data());
    auto known = static_cast<size_t>(std::max(count, 0));
    bool all = known <= groups.size();
    groups.resize(known);
    if (all) break;
  }
  groups.push_back(context->gid);
  return groups;
}

// In a call of its own, as the kernel does where it sees to it itself. Set-group-id without group execution
// is no privilege to members of the group.
fs::Outcome<void> Server::Session::revoke_privileges(fuse_req_t request, const fs::Attributes& before) {
  fs::Attributes file = TRY(filesystem_.get_attributes(before.inode));
  uint32_t mode = file.mode & 07777 & ~uint32_t{S_ISUID};
  auto is_member = [&] { return has(groups_of(request), owners_.shown({before.uid, before.gid}).gid); };
  if ((mode & S_ISGID) != 0 && ((mode & S_IXGRP) != 0 || !is_member())) mode &= ~uint32_t{S_ISGID};
  if (mode != (file.mode & 07777))
    TRY(filesystem_.set_attributes(caller_of(request), before.inode, {.mode = mode}));
  // The kernel leaves this to the server, but does not look whether it was done.
  if (mode != (before.mode & 07777) && !cache_.drop_attributes(before.inode)) return fs::errno_of(EIO);
  return {};
}

struct stat Server::Session::stat_of(const fs::Attributes& attributes) const {
  auto time = [](Timestamp t) { return timespec{.tv_sec = t.sec, .tv_nsec = t.nsec}; };
  Owner owner = owners_.shown({attributes.uid, attributes.gid});
  struct stat out = {};
  out.st_ino = attributes.inode.value;
  out.st_mode = attributes.mode;
  out.st_nlink = attributes.nlink;
  out.st_uid = owner.uid;
  out.st_gid = owner.gid;
  out.st_rdev = attributes.rdev;
  out.st_size = static_cast<off_t>(attributes.size);
  out.st_blksize = fs::kBlockSize;
  out.st_blocks = static_cast<blkcnt_t>(attributes.blocks * (fs::kBlockSize / 512));
  out.st_atim = time(attributes.atime);
  out.st_mtim = time(attributes.mtime);
  out.st_ctim = time(attributes.ctime);
  return out;
}

fuse_entry_param Server::Session::entry(InodeId parent, std::string_view name,
                                        const fs::Attributes& attributes) {
  fuse_entry_param entry = {};
  entry.ino = attributes.inode.value;
  entry.attr = stat_of(attributes);
  entry.attr_timeout = attributes_timeout(attributes.inode);
  entry.entry_timeout = marks_.name(parent, name) ? 0 : options_.cache_timeout_s;
  return entry;
}

// False if the inode went between being found and being pinned.
bool Server::Session::add_to_lookups(const fs::Attributes& attributes) {
  bool newly_pinned = lookups_.add(attributes.inode);
  if (!newly_pinned || filesystem_.get_attributes(attributes.inode)) return true;
  lookups_.remove(attributes.inode, 1);
  return false;
}

void Server::Session::reply_entry(fuse_req_t request, InodeId parent, std::string_view name,
                                  const fs::Outcome<fs::Attributes>& found) {
  if (!found) return reply_error(request, found.error());
  if (!add_to_lookups(*found)) return reply_error(request, fs::Errno{ENOENT});
  fuse_entry_param reply = entry(parent, name, *found);
  if (fuse_reply_entry(request, &reply) != 0) lookups_.remove(found->inode, 1);
}

void Server::Session::reply_created(fuse_req_t request, InodeId parent, std::string_view name,
                                    const fs::Outcome<fs::Attributes>& created, fuse_file_info& file) {
  if (!created) return reply_error(request, created.error());
  if (!add_to_lookups(*created)) return reply_error(request, fs::Errno{ENOENT});
  fuse_entry_param reply = entry(parent, name, *created);
  if (fuse_reply_create(request, &reply, &file) != 0) lookups_.remove(created->inode, 1);
}

// That a name is not there is remembered as long as what one is.
void Server::Session::reply_no_entry(fuse_req_t request, InodeId parent, std::string_view name) {
  fuse_entry_param reply = {};
  reply.entry_timeout = marks_.name(parent, name) ? 0 : options_.cache_timeout_s;
  fuse_reply_entry(request, &reply);
}

void Server::Session::reply_attributes(fuse_req_t request, const fs::Outcome<fs::Attributes>& attributes) {
  if (!attributes) return reply_error(request, attributes.error());
  struct stat reply = stat_of(*attributes);
  fuse_reply_attr(request, &reply, attributes_timeout(attributes->inode));
}

Server::Server(std::unique_ptr<Session> session) : session_(std::move(session)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::start(fs::Filesystem& filesystem, Clock& clock, int fd,
                                              ServerOptions options) {
  CHECK(options.workers > 0);
  auto session = std::make_unique<Session>(filesystem, clock, std::move(options));
  TRY(session->start(fd));
  return std::unique_ptr<Server>(new Server(std::move(session)));
}

bool Server::drain(uint64_t timeout_ms) {
  return session_->drain(timeout_ms);
}
void Server::stop() {
  session_->stop();
}
bool Server::unmounted() const {
  return session_->unmounted_;
}
const RequestCounts& Server::requests() const {
  return session_->counts_;
}
instance::CoherenceHook& Server::coherence() {
  return session_->cache_;
}

}  // namespace reprise::fuse
