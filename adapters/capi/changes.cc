// What changes in an instance, as it does; and what differs between two states.
#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <optional>
#include <thread>

#include "adapters/capi/calls.h"
#include "base/descriptor.h"
#include "instance/compare.h"
#include "instance/snapshots.h"
#include "instance/watch.h"

namespace reprise::capi {
namespace {

constexpr uint32_t kSlice_ms = 100;

// A descriptor that can be read as soon as something was appended to the journal: for a host that sleeps in
// poll(2). It takes a thread, as journals wake threads and not descriptors.
class Bell {
 public:
  static Result<std::unique_ptr<Bell>> make(journal::Journal& journal) {
    Descriptor fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!fd) return std::unexpected(Error::from_errno(errno, "eventfd"));
    return std::make_unique<Bell>(journal, std::move(fd));
  }
  Bell(journal::Journal& journal, Descriptor fd)
      : fd_(std::move(fd)),
        thread_([this, &journal](const std::stop_token& over) { listen(journal, over); }) {}

  int fd() const { return fd_.get(); }
  void ring() const {
    if (::eventfd_write(fd_.get(), 1) != 0) return;  // it rings already as often as it can
  }
  void silence() const {
    eventfd_t rung = 0;
    if (::eventfd_read(fd_.get(), &rung) != 0) return;  // it did not ring
  }

 private:
  void listen(journal::Journal& journal, const std::stop_token& over) const {
    auto cursor = journal.read(journal.last() + 1);
    while (!over.stop_requested()) {
      if (!cursor->wait(kSlice_ms)) {
        // A journal that takes nothing any more does not wait.
        if (journal.failure()) std::this_thread::sleep_for(std::chrono::milliseconds(kSlice_ms));
        continue;
      }
      for (auto next = cursor->next(); next && *next;) next = cursor->next();
      cursor = journal.read(journal.last() + 1);  // also where it was trimmed or damaged: watching says so
      ring();
    }
  }

  Descriptor fd_;
  std::jthread thread_;  // last: it uses the rest
};

void tell(const instance::PathChange& change, reprise_change_callback callback, void* context) {
  using Kind = instance::PathChange::Kind;
  int kind = change.kind == Kind::kCreated   ? REPRISE_CREATED
             : change.kind == Kind::kRemoved ? REPRISE_REMOVED
             : change.kind == Kind::kRenamed ? REPRISE_RENAMED
                                             : REPRISE_CHANGED;
  reprise_change told{kind, change.path.c_str(), change.from.empty() ? nullptr : change.from.c_str(),
                      change.content ? 1 : 0, change.attributes ? 1 : 0};
  callback(context, &told);
}

void tell(const instance::PathDifference& difference, reprise_change_callback callback, void* context) {
  std::string path = "/" + difference.path, from = "/" + difference.old_path;
  int kind = difference.added()     ? REPRISE_CREATED
             : difference.deleted() ? REPRISE_REMOVED
             : difference.renamed() ? REPRISE_RENAMED
                                    : REPRISE_CHANGED;
  reprise_change told{kind, path.c_str(), difference.renamed() ? from.c_str() : nullptr,
                      difference.content ? 1 : 0, difference.attributes ? 1 : 0};
  callback(context, &told);
}

}  // namespace

class Watch {
 public:
  Watch(Instances::Use of, std::unique_ptr<instance::Watch> watch)
      : instance_(std::move(of)), watch_(std::move(watch)) {}

  Result<instance::Watched> next(uint32_t timeout_ms) {
    if (bell_ != nullptr) bell_->silence();  // before looking, so that what comes later rings again
    auto seen = watch_->next(timeout_ms);
    bool may_be_more = !seen || seen->overrun || seen->changes.size() >= instance::WatchOptions{}.paths_max;
    if (bell_ != nullptr && may_be_more) bell_->ring();
    return seen;
  }
  Result<int> descriptor() {
    if (bell_ == nullptr) {
      bell_ = TRY(Bell::make(instance_->journal()));
      bell_->ring();  // for what has come since the beginning
    }
    return bell_->fd();
  }

 private:
  Attached instance_;
  std::unique_ptr<instance::Watch> watch_;
  std::unique_ptr<Bell> bell_;
};

namespace {

Watches& watches() {
  static auto& all = *new Watches;
  return all;
}

template <class Body>
auto with(const reprise_watch* handle, const char* call, const Body& body) noexcept {
  return guarded(call, [&]() -> decltype(body(std::declval<Watch&>())) {
    auto used = watches().use(handle, true);
    if (used.error != 0) return refuse_handle(used.error, call, "watch");
    return body(*used);
  });
}

}  // namespace
}  // namespace reprise::capi

using namespace reprise;
using namespace reprise::capi;

int reprise_watch_begin(reprise_instance* handle, reprise_watch** watch) {
  constexpr const char* kCall = "reprise_watch_begin";
  return guarded(kCall, [&]() -> int {
    if (watch == nullptr) return refuse_null(kCall, "where to put the handle");
    auto used = instances().use(handle, false);
    if (used.error != 0) return refuse_handle(used.error, kCall, "instance");
    auto begun = instance::Watch::begin(**used);
    if (!begun) return refuse(begun.error());
    void* made = watches().add(std::make_unique<Watch>(std::move(used), std::move(*begun)));
    if (made == nullptr) return refuse(ENFILE, fmt::format("{}: too many watches", kCall));
    *watch = static_cast<reprise_watch*>(made);
    return 0;
  });
}

int64_t reprise_watch_next(reprise_watch* handle, uint32_t timeout_ms, reprise_change_callback callback,
                           void* context) {
  constexpr const char* kCall = "reprise_watch_next";
  instance::Watched seen;
  int looked = with(handle, kCall, [&](Watch& watch) -> int {
    if (callback == nullptr) return refuse_null(kCall, "a callback");
    auto next = watch.next(timeout_ms);
    if (!next) return refuse(next.error());
    seen = std::move(*next);
    return 0;
  });
  if (looked != 0) return looked;
  // The watch is free again: the callback may use it.
  if (seen.overrun) {
    reprise_change overrun{REPRISE_OVERRUN, "/", nullptr, 0, 0};
    callback(context, &overrun);
  }
  for (const instance::PathChange& change : seen.changes) tell(change, callback, context);
  return static_cast<int64_t>(seen.changes.size()) + (seen.overrun ? 1 : 0);
}

int reprise_watch_descriptor(reprise_watch* handle) {
  return with(handle, "reprise_watch_descriptor", [](Watch& watch) -> int {
    auto fd = watch.descriptor();
    return fd ? *fd : refuse(fd.error());
  });
}

int reprise_watch_end(reprise_watch* handle) {
  constexpr const char* kCall = "reprise_watch_end";
  return guarded(kCall, [&]() -> int {
    std::unique_ptr<Watch> watch;
    int error = watches().remove(handle, watch, [](const Watch&) { return false; });
    return error == 0 ? 0 : refuse_handle(error, kCall, "watch");
  });
}

int64_t reprise_diff(reprise_instance* before, const char* before_position, reprise_instance* after,
                     const char* after_position, reprise_change_callback callback, void* context) {
  constexpr const char* kCall = "reprise_diff";
  std::vector<instance::PathDifference> found;
  int compared = with(before, kCall, [&](Instance& older) {
    return with(after, kCall, [&](Instance& newer) -> int {
      auto old_tree = tree_at(older, before_position);
      if (!old_tree) return refuse(old_tree.error());
      auto new_tree = tree_at(newer, after_position);
      if (!new_tree) return refuse(new_tree.error());
      auto differences =
          instance::compare(*old_tree, *new_tree, {.one_volume = older->volume() == newer->volume()});
      if (!differences) return refuse(differences.error());
      found = std::move(*differences);
      return 0;
    });
  });
  if (compared != 0) return compared;
  if (callback != nullptr)
    for (const instance::PathDifference& difference : found) tell(difference, callback, context);
  return static_cast<int64_t>(found.size());
}
