#include <fmt/format.h>

#include <cstring>
#include <map>
#include <mutex>

#include "adapters/capi/calls.h"
#include "adapters/capi/options.h"
#include "adapters/capi/reprise.h"
#include "base/host_tree.h"
#include "base/log.h"
#include "instance/branches.h"
#include "instance/history.h"

namespace reprise::capi {

Instances& instances() {
  static auto& all = *new Instances;
  return all;
}

Result<fs::View> tree_at(Instance& instance, const char* position) {
  if (position == nullptr) return TRY(instance->pin()).view;
  if (instance->store() == nullptr || instance->store()->path().empty())
    return fail(Code::kUnsupported, "a volume in memory has no state but the present one: expected null");
  TRY(instance->sync());
  auto until = TRY(instance::resolve_position(*instance->store(), instance->branch(), position,
                                              instance.options.instance.clock));
  return TRY(instance::state_at(*instance->store(), instance->branch(), until)).head.view();
}

namespace {

constexpr uint32_t kContact_ms = 10'000;
constexpr uint32_t kFarewell_ms = 5'000;
constexpr uint64_t kOthers_ns = 5'000'000'000;  // whose calls are under way when it is closed

// The stores that this process has open: each once, whatever has branches of it.
class Stores {
 public:
  Result<std::shared_ptr<store::Store>> open(const std::string& path, Random& random) {
    std::string key = canonical_host_path(path);
    std::lock_guard lock(mutex_);
    std::erase_if(open_, [](auto& entry) { return entry.second.expired(); });
    if (auto store = open_[key].lock()) return store;
    std::shared_ptr<store::Store> store;
    if (!store::Store::looks_like_store(path)) {
      auto made = store::Store::create(path, random.next_id<VolumeId>());
      // One that another process made in this moment is as good.
      if (!made && made.error().code() != Code::kAlreadyExists) return std::unexpected(made.error());
      if (made) store = std::move(*made);
    }
    if (store == nullptr) store = TRY(store::Store::open(path));
    open_[key] = store;
    return store;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<store::Store>> open_;
};

Stores& stores() {
  static auto& stores = *new Stores;
  return stores;
}

Result<journal::Durability> durability_of(const std::string& name) {
  if (name == "none") return journal::Durability::kNone;
  if (name == "lazy") return journal::Durability::kLazy;
  if (name == "fsync") return journal::Durability::kFsync;
  if (name == "always") return journal::Durability::kAlways;
  return fail(Code::kInvalidArgument,
              fmt::format("durability: expected \"none\", \"lazy\", \"fsync\" or \"always\", found \"{}\"",
                          printable(name)));
}

std::optional<uint64_t> limit_of(uint64_t wanted) {
  if (wanted == 0) return std::nullopt;
  return wanted == UINT64_MAX ? 0 : wanted;
}

Result<instance::HostOptions> options_of(const char* store, const reprise_instance_options& given) {
  instance::HostOptions options;
  options.store_path = text_or(store, "");
  options.label = text_or(given.label, "");
  if (options.label.size() > journal::kLabelLimit)
    return fail(Code::kInvalidArgument, fmt::format("label: expected at most {} bytes, found {}",
                                                    journal::kLabelLimit, options.label.size()));
  if (given.listen != nullptr) options.listen = TRY(Endpoint::parse(given.listen));
  if (given.follow != nullptr) options.follow = TRY(Endpoint::parse(given.follow));
  if (given.token != nullptr) {
    constexpr size_t kLeast = 16, kMost = 4096;
    options.token = std::make_shared<const std::string>(given.token);
    if (options.token->size() < kLeast || options.token->size() > kMost)
      return fail(Code::kInvalidArgument, fmt::format("token: expected {} to {} bytes, found {}", kLeast,
                                                      kMost, options.token->size()));
  }
  options.await_followers_ms = given.await_followers_ms;
  options.volume_bytes = limit_of(given.volume_bytes);
  options.volume_inodes = limit_of(given.volume_inodes);
  options.instance.branch = text_or(given.branch, "main");
  options.instance.journal.durability = TRY(durability_of(text_or(given.durability, "fsync")));
  options.instance.holder = {::getpid(), "libreprise"};
  return options;
}

Result<std::unique_ptr<Instance>> open(instance::HostOptions options, uint32_t contact_ms) {
  const std::string& path = options.store_path;
  bool new_follower = options.follow && (path.empty() || !store::Store::looks_like_store(path));
  if (options.store == nullptr && !path.empty() && !new_follower)
    options.store = TRY(stores().open(path, options.instance.random));
  auto host = TRY(instance::Host::open(options));
  auto opened = std::make_unique<Instance>(std::move(host), std::move(options));
  TRY(opened->host->take_back_tail());
  TRY(opened->host->connect(contact_ms != 0 ? contact_ms : kContact_ms));
  return opened;
}

int give(Result<std::unique_ptr<Instance>> opened, reprise_instance** instance, const char* call) {
  if (!opened) return refuse(opened.error());
  void* handle = instances().add(std::move(*opened));
  if (handle == nullptr) return refuse(ENFILE, fmt::format("{}: too many instances", call));
  *instance = static_cast<reprise_instance*>(handle);
  return 0;
}

// As the control socket is asked; what waits ends when the instance is closed.
int ask(Instance& instance, const instance::Json& question) {
  auto answer = instance.host->ask(question, instance.closing);
  return answer ? 0 : refuse(answer.error());
}

// Silent, unless the host wants to know.
void set_log_once() {
  static const bool set = [] {
    set_log_sink([](LogLevel, std::string_view) {});
    return true;
  }();
  static_cast<void>(set);
}

}  // namespace
}  // namespace reprise::capi

using namespace reprise;
using namespace reprise::capi;

const char* reprise_version(void) {
  static const std::string version =
      fmt::format("{}.{}.{}", REPRISE_VERSION_MAJOR, REPRISE_VERSION_MINOR, REPRISE_VERSION_PATCH);
  return version.c_str();
}

const char* reprise_last_error(void) {
  return last_error();
}

void reprise_set_log(reprise_log_callback callback, void* context) {
  set_log_once();
  if (callback == nullptr) return set_log_sink([](LogLevel, std::string_view) {});
  set_log_sink([callback, context](LogLevel level, std::string_view line) {
    callback(context, level == LogLevel::kDebug ? REPRISE_LOG_DEBUG : REPRISE_LOG_WARNING,
             std::string(line).c_str());
  });
}

int reprise_instance_open(const char* store, const reprise_instance_options* options,
                          reprise_instance** instance) {
  constexpr const char* kCall = "reprise_instance_open";
  return guarded(kCall, [&]() -> int {
    if (instance == nullptr) return refuse_null(kCall, "where to put the handle");
    if (forked) return refuse_handle(EPERM, kCall, "library");
    set_log_once();
    if (store != nullptr && *store == '\0')
      return refuse(EINVAL, fmt::format("{}: expected a path, found none", kCall));
    reprise_instance_options given = REPRISE_INSTANCE_OPTIONS_INIT;
    if (options != nullptr) {
      if (int wrong = take_options(given, options, kCall); wrong != 0) return wrong;
    }
    auto host_options = options_of(store, given);
    if (!host_options) return refuse(host_options.error());
    return give(open(std::move(*host_options), given.contact_timeout_ms), instance, kCall);
  });
}

int reprise_instance_close(reprise_instance* handle) {
  constexpr const char* kCall = "reprise_instance_close";
  return guarded(kCall, [&]() -> int {
    std::unique_ptr<Instance> instance;
    uint32_t attached = 0;
    const uint64_t begin_ns = system_clock().monotonic_ns();
    int error = instances().remove(handle, instance, [&](Instance& used) {
      attached = used.attached;
      bool waits = attached == 0 && system_clock().monotonic_ns() - begin_ns < kOthers_ns;
      used.closing = waits;
      return waits;
    });
    if (error == EBUSY && attached != 0)
      return refuse(error, fmt::format("{}: the instance has {} guests or watches", kCall, attached));
    if (error != 0) return refuse_handle(error, kCall, "instance");
    instance->host->say_farewell(kFarewell_ms);
    return done(instance->host->close());
  });
}

int reprise_sync(reprise_instance* handle) {
  return with(handle, "reprise_sync", [](Instance& instance) { return done(instance->sync()); });
}

int reprise_mark(reprise_instance* handle, const char* name) {
  return with(handle, "reprise_mark", [&](Instance& instance) -> int {
    if (name == nullptr) return refuse_null("reprise_mark", "a name");
    auto marked = instance->mark(name, instance.options.label);
    return marked ? 0 : refuse(marked.error());
  });
}

int reprise_wait_for_mark(reprise_instance* handle, const char* name, uint32_t timeout_ms) {
  return with(handle, "reprise_wait_for_mark", [&](Instance& instance) -> int {
    if (name == nullptr) return refuse_null("reprise_wait_for_mark", "a name");
    return ask(instance, {{"ask", "wait-for"}, {"mark", name}, {"timeout_ms", timeout_ms}});
  });
}

int64_t reprise_position(reprise_instance* handle, char* text, size_t size) {
  return with(handle, "reprise_position", [&](Instance& instance) -> int64_t {
    auto moment = instance->settle();
    if (!moment) return refuse(moment.error());
    auto token = instance->token_of(*moment);
    if (!token) return refuse(token.error());
    return put_text(*token, text, size);
  });
}

int reprise_wait_for(reprise_instance* handle, const char* position, uint32_t timeout_ms) {
  return with(handle, "reprise_wait_for", [&](Instance& instance) -> int {
    if (position == nullptr || *position == 0) return refuse_null("reprise_wait_for", "a position");
    return ask(instance, {{"ask", "wait-for"}, {"position", position}, {"timeout_ms", timeout_ms}});
  });
}

int reprise_flush(reprise_instance* handle, uint32_t peers, int synced, uint32_t timeout_ms) {
  return with(handle, "reprise_flush", [&](Instance& instance) -> int {
    instance::Json question = {{"ask", "flush"}, {"synced", synced != 0}, {"timeout_ms", timeout_ms}};
    if (peers != 0) question["count"] = peers;
    return ask(instance, question);
  });
}

int64_t reprise_snapshot(reprise_instance* handle, const char* label) {
  return with(handle, "reprise_snapshot", [&](Instance& instance) -> int64_t {
    auto record = instance->snapshot(text_or(label, ""));
    if (!record) return refuse(record.error());
    return static_cast<int64_t>(record->id);
  });
}

int64_t reprise_statistics(reprise_instance* handle, char* text, size_t size) {
  return with(handle, "reprise_statistics", [&](Instance& instance) -> int64_t {
    // Bytes of names that are no UTF-8 become U+FFFD.
    std::string json =
        instance.host->statistics().dump(-1, ' ', false, instance::Json::error_handler_t::replace);
    return put_text(json, text, size);
  });
}

int reprise_digest(reprise_instance* handle, unsigned char digest[16]) {
  return with(handle, "reprise_digest", [&](Instance& instance) -> int {
    if (digest == nullptr) return refuse_null("reprise_digest", "room for 16 bytes");
    Digest128 found = instance->filesystem().digest();
    std::memcpy(digest, &found.lo, 8);
    std::memcpy(digest + 8, &found.hi, 8);
    return 0;
  });
}

int reprise_fork(reprise_instance* handle, const char* name, reprise_instance** child) {
  constexpr const char* kCall = "reprise_fork";
  return with(handle, kCall, [&](Instance& parent) -> int {
    if (child == nullptr) return refuse_null(kCall, "where to put the handle");
    if (name == nullptr) return refuse_null(kCall, "a name");
    if (auto forked_off = parent->fork(name); !forked_off) return refuse(forked_off.error());
    instance::HostOptions options;
    options.store_path = parent.options.store_path;
    options.store = parent->shared_store();
    options.label = parent.options.label;
    options.instance.branch = name;
    options.instance.journal = parent.options.instance.journal;
    options.instance.holder = parent.options.instance.holder;
    return give(open(std::move(options), 0), child, kCall);
  });
}
