// Making a store's catalogue anew, and setting damaged packs aside. docs/snapshot-format.md, section 8.
//
// Everything in the packs is read and checked. Nothing is destroyed: what is replaced or damaged is renamed.
// Until finish() the store is as it was, but for files that are set aside or new. What snapshots need is not
// known here: the caller says which can be read, and what they need. Threads: one.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/store.h"

namespace reprise::store {

// A file in the store with this name: marks are still to be looked for in its journals.
inline constexpr std::string_view kMarksWanted = "marks-wanted";

class StoreRepair {
 public:
  // Looks at everything. kBusy while anybody has the store open for writing.
  static Result<std::unique_ptr<StoreRepair>> begin(const std::string& path);
  virtual ~StoreRepair() = default;

  // Is there anything to do? If so:
  virtual bool needed() const = 0;
  // What is wrong: with the catalogue; then with the copies of its records, and with each blob that it has
  // and that cannot be read.
  virtual const std::optional<Error>& catalogue_problem() const = 0;
  virtual const std::vector<Error>& damage() const = 0;
  // The catalogue that is being made: with all blobs that can be read, and all snapshots, read or not.
  virtual Catalogue& catalogue() = 0;
  virtual BlobSource& blobs() = 0;
  // Only these snapshots stay, and the blobs that they need; the damaged packs are set aside, and the new
  // catalogue takes the place of the old one; kMarksWanted is there if that was lost. The names of what was
  // set aside. A crash on the way leaves something of which another repair makes the same.
  virtual Result<std::vector<std::string>> finish(const std::vector<uint64_t>& snapshots,
                                                  const std::function<bool(BlobId)>& needed) = 0;
};

}  // namespace reprise::store
