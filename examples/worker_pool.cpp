// A pool of workers, in the two ways there are.
//
//   worker_pool shared STORE WORKERS TASKS     many guests on one instance: they see each other's files at
//   once,
//                                              and keep apart by locks
//   worker_pool apart STORE WORKERS TASKS      an instance a worker: nobody sees anything of the others until
//   a
//                                              worker's branch is joined, all of it or nothing
#include <fcntl.h>
#include <sys/file.h>

#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "reprise.hpp"

using reprise::Guest;
using reprise::GuestOptions;
using reprise::Instance;

namespace {

// What would be an interpreter that runs a script.
void run_task(Guest& guest, int task) {
  guest.set_label("task " + std::to_string(task));
  guest.write_file("/results/" + std::to_string(task), std::to_string(task * task));
}

// The number of the next task, from a file that all workers count in.
int take_task(Guest& guest) {
  int fd = guest.open("/next", O_RDWR | O_CREAT);
  guest.flock(fd, LOCK_EX);
  std::string text = guest.read_file("/next");
  int task = text.empty() ? 0 : std::stoi(text);
  guest.write_file("/next", std::to_string(task + 1));
  guest.close(fd);  // and the lock with it
  return task;
}

// Runs the body once for each worker, all at once; tells what went wrong.
template <class Body>
bool in_parallel(int workers, const Body& body) {
  std::vector<std::thread> threads;
  std::vector<std::string> errors(workers);
  for (int worker = 0; worker < workers; ++worker) {
    threads.emplace_back([&body, worker, &error = errors[worker]] {
      try {
        body(worker);
      } catch (const std::exception& caught) {
        error = caught.what();
      }
    });
  }
  bool well = true;
  for (int worker = 0; worker < workers; ++worker) {
    threads[worker].join();
    if (errors[worker].empty()) continue;
    std::cerr << "worker " << worker << ": " << errors[worker] << "\n";
    well = false;
  }
  return well;
}

bool work_shared(Instance& site, int workers, int tasks) {
  return in_parallel(workers, [&](int) {
    Guest guest(site);
    for (int task = take_task(guest); task < tasks; task = take_task(guest)) run_task(guest, task);
  });
}

bool work_apart(Instance& site, int workers, int tasks) {
  auto branch = [](int worker) { return "worker-" + std::to_string(worker); };
  bool well = in_parallel(workers, [&](int worker) {
    Instance own = site.fork(branch(worker));
    {
      Guest guest(own);
      for (int task = worker; task < tasks; task += workers) run_task(guest, task);
    }
    own.close();
  });
  for (int worker = 0; worker < workers && well; ++worker) well = site.join(branch(worker)).empty();
  return well;
}

}  // namespace

int main(int argc, char** argv) try {
  std::string way = argc == 5 ? argv[1] : "";
  if (way != "shared" && way != "apart") {
    std::cerr << "usage: worker_pool shared|apart STORE WORKERS TASKS\n";
    return 2;
  }
  Instance site(argv[2]);
  int workers = std::stoi(argv[3]), tasks = std::stoi(argv[4]);
  Guest(site).mkdir("/results");
  bool well = way == "shared" ? work_shared(site, workers, tasks) : work_apart(site, workers, tasks);
  std::cout << Guest(site).list("/results").size() << " results by " << workers << " workers\n";
  return well ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << "worker_pool: " << error.what() << "\n";
  return 1;
}
