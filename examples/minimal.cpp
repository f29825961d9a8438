// A small C++ host: two instances in step over a socket; a script tried in a fork, joined if it did well.
//
//   c++ -std=c++17 minimal.cpp -lreprise && ./a.out FOLDER
#include <chrono>
#include <iostream>
#include <string>

#include "reprise.hpp"

using namespace std::chrono_literals;
using reprise::Guest;
using reprise::Instance;
using reprise::InstanceOptions;

// What would be an interpreter that runs a script.
static bool run_script(Guest guest, bool good) {
  guest.write_file("/report", good ? "done" : "half d");
  return good;
}

int main(int argc, char** argv) try {
  std::string folder = argc > 1 ? argv[1] : ".", socket = "unix:" + folder + "/site.sock";
  InstanceOptions leading, following;
  leading.listen = socket;
  following.follow = socket;
  Instance site(folder + "/site.store", leading);
  Instance mirror(following);  // in memory, in this process; it could as well be anywhere

  Guest(site).write_file("/hello", "hi");
  for (bool good : {false, true}) {
    Instance attempt = site.fork("attempt");
    bool did_well = run_script(Guest(attempt), good);
    attempt.close();
    if (!did_well) {
      site.discard("attempt");
    } else if (!site.join("attempt").empty()) {
      std::cerr << "the site has changed in the same places meanwhile\n";
      return 1;
    }
  }
  site.snapshot("released");

  mirror.wait_for(site.position(), 5s);
  for (const reprise::Entry& entry : Guest(mirror).list("/"))
    std::cout << entry.name << ": " << Guest(mirror).read_file("/" + entry.name) << "\n";
  return site.digest() == mirror.digest() ? 0 : 1;
} catch (const reprise::Error& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
