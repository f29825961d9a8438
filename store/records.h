// How the catalogue's records lie in LMDB: one version byte, then little-endian fields, strings after their
// length. decode gives nullopt for bytes that are no such record.
#pragma once

#include <optional>

#include "base/bytes.h"
#include "store/catalogue.h"

namespace reprise::store {

Bytes encode(const SnapshotRecord& record);
Bytes encode(const MarkRecord& record);
Bytes encode(const BranchRecord& record);
Bytes encode(const BlobPlace& place);

template <class Record>
std::optional<Record> decode(ByteView bytes);
template <>
std::optional<SnapshotRecord> decode(ByteView bytes);
template <>
std::optional<MarkRecord> decode(ByteView bytes);
template <>
std::optional<BranchRecord> decode(ByteView bytes);
template <>
std::optional<BlobPlace> decode(ByteView bytes);

// Will decode accept it again? kInvalidArgument if names or texts are not as the catalogue wants them.
Status check(const SnapshotRecord& record);
Status check(const MarkRecord& record);
Status check(const BranchRecord& record);

}  // namespace reprise::store
