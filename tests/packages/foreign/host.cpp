// A host of somebody else's: two instances in step, an attempt that is joined, an error that is caught.
#include <iostream>
#include <reprise.hpp>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::string folder = argv[1];
  reprise::InstanceOptions leading, following;
  leading.listen = following.follow = "unix:" + folder + "/socket";
  reprise::Instance leader(folder + "/store", leading), follower(following);
  {
    reprise::Instance attempt = leader.fork("attempt");
    reprise::Guest(attempt).write_file("/f", "joined");
    attempt.close();
  }
  if (!leader.join("attempt").empty()) return 1;
  follower.wait_for(leader.position(), std::chrono::seconds(10));
  try {
    reprise::Guest(follower).write_file("/f", "no");
  } catch (const reprise::Error& error) {
    std::cout << reprise::Guest(follower).read_file("/f") << "; " << error.what() << "\n";
    return 0;
  }
  return 1;
}
