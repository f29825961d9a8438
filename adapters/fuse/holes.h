// Holes: answers lseek(2) with SEEK_DATA and SEEK_HOLE.
//
// The kernel asks without having written back what programs put into shared mappings: where the filesystem
// has a hole there may be bytes that it has not seen. So before a place is called a hole, the kernel is made
// to write back what it has of it, which is cheap: of a hole little is cached. That may take requests of its
// own, so it is done by a thread that serves none. Where the answer is data, nothing needs to be waited for.
//
// Threads: answer() by any worker; stop() by the session's owner, while the workers still serve.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "adapters/fuse/kernel_cache.h"
#include "adapters/fuse/libfuse.h"
#include "fs/filesystem.h"

namespace reprise::fuse {

class Holes {
 public:
  Holes(fs::Filesystem& filesystem, KernelCache& cache) : filesystem_(filesystem), cache_(cache) {}
  ~Holes() { stop(); }
  Holes(const Holes&) = delete;
  Holes& operator=(const Holes&) = delete;

  // Answers the request, now or later. whence is SEEK_DATA or SEEK_HOLE.
  void answer(fuse_req_t request, InodeId inode, uint64_t offset, int whence);
  // Waits until those that are left are answered. Those that follow are answered as the filesystem knows.
  void stop();

 private:
  struct Question {
    fuse_req_t request;
    InodeId inode;
    uint64_t offset;
    int whence;
  };
  // What the filesystem says, and the bytes that it takes to be a hole in saying so: none if they are equal.
  struct Found {
    fs::Outcome<uint64_t> answer;
    uint64_t hole = 0, hole_end = 0;
    bool operator==(const Found&) const = default;
  };

  Found find(const Question& question) const;
  Found find_written_back(const Question& question);
  void serve();

  fs::Filesystem& filesystem_;
  KernelCache& cache_;
  std::mutex mutex_;
  std::condition_variable asked_;
  std::deque<Question> questions_;
  bool stopping_ = false;
  std::thread thread_;  // from the first question on
};

}  // namespace reprise::fuse
