// The disk of one simulated machine: the folders of a store, each a CrashDisk with platters beneath, and a
// catalogue. One program at a time uses it. It can be killed between any two changes, and the power can fail.
//
// The catalogue stands for LMDB, whose transactions are whole and durable when they return: it loses nothing.
#pragma once

#include <map>
#include <memory>
#include <random>
#include <string>

#include "store/store.h"
#include "tests/journal/crash_disk.h"

namespace reprise::sim {

class MachineDisk {
 public:
  explicit MachineDisk(VolumeId volume);

  // The store on it, for the program that runs now.
  std::shared_ptr<store::Store> open_store();

  // --- what befalls it
  test::Lifeline& program() { return *program_; }
  // The program is gone; what it wrote is there, what it did not sync is still in doubt.
  void after_kill();
  // What was not synced is kept, lost or torn.
  void after_power_loss(std::mt19937_64& random);
  // So many bytes are left in each folder, and a few changes of the catalogue, which has some pages free.
  void fill_up(uint64_t left);
  // The journal's folders alone are full, and the catalogue takes so many changes more.
  void fill_up_journals(uint64_t catalogue_changes);
  void fail_next_write(int sys_errno);
  void fail_next_sync(int sys_errno);
  void heal();

  uint64_t changes() const { return changes_; }  // a hash of all there were
  store::Catalogue& catalogue() { return *catalogue_; }

 private:
  friend class SimulatedStore;
  struct Folder {
    std::shared_ptr<test::CrashDisk> disk;
    std::unique_ptr<test::Platters> platters;
  };
  Folder& folder(const std::string& name, const test::Files& files = {});
  void follow();  // platters catch up with what was done

  const VolumeId volume_;
  std::shared_ptr<test::Lifeline> program_ = std::make_shared<test::Lifeline>();
  std::unique_ptr<store::Catalogue> catalogue_ = store::catalogue_in_memory();
  std::optional<uint64_t> catalogue_room_;  // so many changes; nullopt: no limit
  std::map<std::string, Folder> folders_;
  uint64_t space_left_ = test::CrashDisk::kPlenty;
  uint64_t changes_ = 0;
};

}  // namespace reprise::sim
