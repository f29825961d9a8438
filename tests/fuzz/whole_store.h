// Small stores, whole, as files in memory: what the target `store` damages. Two, always the same: one whose
// process was killed, with a journal of several plain segments; and one that was closed, compressed and
// trimmed. Both have packs, snapshots with and without a label, marks.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"

namespace reprise::fuzz {

using StoreFiles = std::map<std::string, Bytes>;  // by path below the store

struct WholeStore {
  StoreFiles files;
  std::set<std::pair<uint64_t, uint64_t>> digests;  // of every state it ever had, low and high
};
const std::vector<WholeStore>& whole_stores();

// A folder of this process's own, gone with it, in memory if there is such a place.
std::string scratch_folder();

// What lies below a folder, but for locks and sockets; and a folder made to have that and nothing else.
StoreFiles read_files(const std::string& folder);
void write_files(const std::string& folder, const StoreFiles& files);

}  // namespace reprise::fuzz
