// Watching, comparing, flushing, and closing what others use.
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "tests/capi/host.h"

namespace {

using namespace std::chrono_literals;
using reprise::Change;
using reprise::Guest;
using reprise::Instance;
using reprise::InstanceOptions;
using reprise::Watch;
using reprise::host::error_of;

struct Changes : reprise::host::Capi {};

std::string shown(const std::vector<Change>& changes) {
  std::string text;
  for (const Change& change : changes) {
    const char* kinds = "?+*->!";
    text += kinds[change.kind];
    if (!change.from.empty()) text += change.from + ">";
    text += change.path;
    if (change.content) text += " c";
    if (change.attributes) text += " a";
    text += "\n";
  }
  return text;
}

bool is_readable(int fd, int timeout_ms) {
  pollfd polled{fd, POLLIN, 0};
  return ::poll(&polled, 1, timeout_ms) == 1;
}

TEST_F(Changes, AreToldOnceEach) {
  Instance instance;
  Guest guest(instance);
  guest.write_file("/old", "x");
  guest.mkdir("/d");
  Watch watch(instance);
  EXPECT_EQ(shown(watch.next()), "");
  for (int i = 0; i < 50; ++i) guest.write_file("/old", std::string(1 + i, 'y'));
  guest.write_file("/new", "x");
  guest.write_file("/gone", "x");
  guest.unlink("/gone");
  guest.rename("/d", "/e");
  guest.chmod("/e", 0700);
  EXPECT_EQ(shown(watch.next(10s)), "*/old c\n+/new\n>/d>/e a\n");
  guest.unlink("/new");
  EXPECT_EQ(shown(watch.next(10s)), "-/new\n");
  EXPECT_EQ(shown(watch.next(1ms)), "");
}

TEST_F(Changes, OfALeaderAreSeenByWhoWatchesAFollower) {
  InstanceOptions leading, following;
  leading.listen = following.follow = "unix:" + path("socket");
  Instance a(path("a"), leading), b(following);
  Watch watch(b);
  Guest(a).write_file("/f", "x");
  b.wait_for(a.position(), 10s);
  EXPECT_EQ(shown(watch.next(10s)), "+/f\n");
}

TEST_F(Changes, RingADescriptorUntilTheyAreTold) {
  for (bool on_disk : {false, true}) {
    Instance instance = on_disk ? Instance(path("s")) : Instance();
    Guest guest(instance);
    Watch watch(instance);
    guest.write_file("/before", "x");
    int fd = watch.descriptor();
    EXPECT_EQ(watch.descriptor(), fd);
    EXPECT_TRUE(is_readable(fd, 0)) << "for what came before it was made";
    EXPECT_EQ(shown(watch.next()), "+/before\n");
    for (int i = 0; i < 3 && is_readable(fd, 300); ++i) {  // of what was told already, once more at the most
      EXPECT_EQ(shown(watch.next()), "");
    }
    EXPECT_FALSE(is_readable(fd, 0));
    for (int i = 0; i < 3; ++i) {
      guest.write_file("/f" + std::to_string(i), "x");
      ASSERT_TRUE(is_readable(fd, 10'000));
      EXPECT_EQ(shown(watch.next()), "+/f" + std::to_string(i) + "\n");
    }
  }
}

TEST_F(Changes, HoldTheInstance) {
  Instance instance;
  {
    Watch watch(instance);
    EXPECT_EQ(error_of([&] { instance.close(); }), EBUSY);
    EXPECT_STREQ(reprise_last_error(), "reprise_instance_close: the instance has 1 guests or watches");
    Guest(instance).write_file("/f", "x");
  }
  instance.close();
}

TEST_F(Changes, HandlesThatAreNoneAreRefused) {
  Instance instance;
  Guest guest(instance);
  auto tell = [](void*, const reprise_change*) {};
  reprise_watch* gone = nullptr;
  ASSERT_EQ(reprise_watch_begin(instance.handle(), &gone), 0);
  EXPECT_EQ(reprise_watch_next(gone, 0, nullptr, nullptr), -EINVAL);
  ASSERT_EQ(reprise_watch_end(gone), 0);
  for (reprise_watch* wrong :
       {static_cast<reprise_watch*>(nullptr), gone, reinterpret_cast<reprise_watch*>(instance.handle()),
        reinterpret_cast<reprise_watch*>(guest.handle())}) {
    EXPECT_EQ(reprise_watch_next(wrong, 0, tell, nullptr), -EBADF);
    EXPECT_EQ(reprise_watch_descriptor(wrong), -EBADF);
    EXPECT_EQ(reprise_watch_end(wrong), -EBADF);
  }
  EXPECT_EQ(reprise_watch_begin(instance.handle(), nullptr), -EINVAL);
  EXPECT_EQ(reprise_diff(instance.handle(), nullptr, nullptr, nullptr, nullptr, nullptr), -EBADF);
  EXPECT_EQ(reprise_diff(nullptr, nullptr, instance.handle(), nullptr, nullptr, nullptr), -EBADF);
  EXPECT_EQ(reprise_diff(instance.handle(), "m", instance.handle(), nullptr, nullptr, nullptr), -ENOTSUP);
}

TEST_F(Changes, BetweenTwoStates) {
  Instance site(path("s"));
  Guest guest(site);
  guest.write_file("/same", "x");
  guest.write_file("/moved", "y");
  guest.write_file("/changed", "z");
  site.mark("before");
  EXPECT_EQ(shown(diff(site, site)), "");
  Instance attempt = site.fork("attempt");
  {
    Guest child(attempt);
    child.rename("/moved", "/renamed");
    child.write_file("/changed", "zz");
    child.mkdir("/d");
    child.write_file("/d/f", "");
  }
  const std::string wanted = "*/changed c\n+/d\n+/d/f\n>/moved>/renamed\n";
  EXPECT_EQ(shown(diff(site, attempt)), wanted);
  EXPECT_EQ(shown(diff(site, attempt, "before")), wanted);
  guest.unlink("/same");
  EXPECT_EQ(shown(diff(site, site, "before")), "-/same\n");
  EXPECT_EQ(shown(diff(site, site, {}, "before")), "+/same\n");
  EXPECT_EQ(error_of([&] { diff(site, site, "never"); }), ENOENT);
  EXPECT_EQ(reprise_diff(site.handle(), "before", site.handle(), nullptr, nullptr, nullptr), 1);
  Instance other;
  EXPECT_EQ(shown(diff(other, site)), "+/changed\n+/moved\n") << "of two volumes, by paths";
}

TEST_F(Changes, FlushWaitsForFollowers) {
  InstanceOptions leading, following;
  leading.listen = following.follow = "unix:" + path("socket");
  Instance a(path("a"), leading);
  EXPECT_EQ(error_of([&] { a.flush(10ms); }), ENOENT) << "nobody is connected";
  Instance b(path("b"), following);
  Guest(a).write_file("/f", "x");
  a.flush(10s, 1, true);
  EXPECT_EQ(Guest(b).read_file("/f"), "x");
  a.flush(10s);
  EXPECT_EQ(error_of([&] { a.flush(50ms, 2); }), ETIMEDOUT);
  EXPECT_EQ(error_of([&] { b.flush(50ms); }), ENOENT);
  EXPECT_EQ(error_of([&] { Instance().flush(50ms); }), ENOENT);
  EXPECT_STREQ(reprise_last_error(), "the volume in memory: nobody can follow it: it does not listen");
}

TEST_F(Changes, OfWhoIsThereAreSaidAsTheyAre) {
  InstanceOptions options;
  options.contact_timeout = 50ms;
  for (std::string nobody : {"unix:" + path("nobody"), std::string("tcp:127.0.0.1:1")}) {
    options.follow = nobody;
    EXPECT_EQ(error_of([&] { Instance gone(options); }), ECONNREFUSED) << nobody;
  }
  options.follow = "pigeon:1";
  EXPECT_EQ(error_of([&] { Instance gone(options); }), EINVAL);
  options.follow.clear();
  options.listen = "tcp:0.0.0.0:1";
  EXPECT_EQ(error_of([&] { Instance gone(options); }), EACCES);
  EXPECT_EQ(std::string(reprise_last_error()).find("--"), std::string::npos) << reprise_last_error();
}

// Closing goes ahead although others call without a pause, and ends the wait of who waits.
TEST_F(Changes, ClosingIsNotHeldUpByThoseWhoCallOn) {
  Instance instance;
  reprise_instance* handle = instance.handle();
  std::atomic<int> refused{0}, other{0}, running{0};
  auto call_on = [&] {
    ++running;
    int result = 0;
    while (result != -EBADF) {
      unsigned char digest[16];
      result = reprise_digest(handle, digest);
      if (result == -EBUSY) {
        ++refused;
      } else if (result != 0 && result != -EBADF) {
        ++other;
      }
    }
  };
  std::thread waiter([&] {
    ++running;
    EXPECT_EQ(reprise_wait_for_mark(handle, "never", 60'000), -ECANCELED) << reprise_last_error();
  });
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) callers.emplace_back(call_on);
  while (running < 4) std::this_thread::yield();
  std::this_thread::sleep_for(20ms);
  auto begin = std::chrono::steady_clock::now();
  instance.close();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 4s);
  for (std::thread& caller : callers) caller.join();
  waiter.join();
  EXPECT_EQ(other, 0);
}

}  // namespace
