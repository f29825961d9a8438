#include "store/snapshot_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/hash.h"
#include "store/records.h"

namespace reprise::store {
namespace {

constexpr uint64_t kMagic = 0x313050414e535052;  // "RPSNAP01"
constexpr uint64_t kFileLimit = uint64_t{64} << 20;
constexpr std::string_view kEnding = ".snapshot";

std::string name_of(uint64_t id) {
  return fmt::format("{:08}{}", id, kEnding);
}
// 0 if it is no such file.
uint64_t id_of(std::string_view name) {
  if (!name.ends_with(kEnding)) return 0;
  name.remove_suffix(kEnding.size());
  uint64_t id = 0;
  auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
  return error == std::errc{} && end == name.data() + name.size() ? id : 0;
}

void append_record(Bytes& out, const Bytes& record) {
  append_value(out, static_cast<uint32_t>(record.size()));
  append_bytes(out, record);
}

}  // namespace

Status SnapshotFiles::put(const SnapshotCopy& copy) {
  Bytes out;
  append_value(out, kMagic);
  append_record(out, encode(copy.record));
  append_value(out, static_cast<uint32_t>(copy.marks.size()));
  for (const MarkRecord& mark : copy.marks) append_record(out, encode(mark));
  append_value(out, hash64(out));
  return directory_->replace_file(name_of(copy.record.id), out);
}

Result<SnapshotCopy> SnapshotFiles::read(const std::string& name) {
  Bytes bytes = TRY(directory_->read_file(name, kFileLimit));
  auto damaged = [&] {
    return fail(Code::kCorrupt, fmt::format("{}/{}: expected the record of a snapshot, found other bytes",
                                            directory_->path(), name));
  };
  if (bytes.size() < sizeof(uint64_t)) return damaged();
  ByteView checked = ByteView(bytes).first(bytes.size() - sizeof(uint64_t));
  if (load_value<uint64_t>(checked.data() + checked.size()) != hash64(checked)) return damaged();
  ByteReader in(checked);
  if (in.value<uint64_t>() != kMagic) return damaged();
  auto record = decode<SnapshotRecord>(in.take(in.value<uint32_t>()));
  if (!record || record->id != id_of(name)) return damaged();
  SnapshotCopy copy{std::move(*record), {}};
  for (auto marks = in.value<uint32_t>(); marks > 0 && in.ok(); --marks) {
    auto mark = decode<MarkRecord>(in.take(in.value<uint32_t>()));
    if (!mark) return damaged();
    copy.marks.push_back(std::move(*mark));
  }
  if (!in.at_end()) return damaged();
  return copy;
}

Status SnapshotFiles::replace_record(const SnapshotRecord& record) {
  SnapshotCopy copy{record, {}};
  auto before = read(name_of(record.id));
  if (before) copy.marks = std::move(before->marks);
  return put(copy);
}

Status SnapshotFiles::remove(uint64_t id) {
  Status removed = directory_->unlink(name_of(id));
  if (!removed && removed.error().code() == Code::kNotFound) return {};
  return removed;
}

Status SnapshotFiles::remove_all_but(const std::vector<uint64_t>& ids, uint64_t last) {
  for (const std::string& name : TRY(names_of_others(ids)))
    if (id_of(name) <= last) TRY(remove(id_of(name)));
  return directory_->sync();
}

Result<std::vector<std::string>> SnapshotFiles::names_of_others(const std::vector<uint64_t>& ids) {
  std::vector<std::string> names = TRY(directory_->list());
  std::erase_if(names, [&](const std::string& name) {
    uint64_t id = id_of(name);
    return id == 0 || std::ranges::find(ids, id) != ids.end();
  });
  return names;
}

Result<std::vector<Error>> SnapshotFiles::check(const std::vector<SnapshotRecord>& records) {
  std::vector<Error> wrong;
  for (const SnapshotRecord& record : records) {
    auto copy = read(name_of(record.id));
    if (!copy && copy.error().code() != Code::kCorrupt && copy.error().code() != Code::kNotFound)
      return std::unexpected(copy.error());
    if (!copy) {
      wrong.push_back(copy.error());
      continue;
    }
    // A label may be another: the file is written before the catalogue.
    const SnapshotRecord& found = copy->record;
    if (found.root == record.root && found.digest == record.digest && found.branch == record.branch &&
        found.log_index == record.log_index)
      continue;
    wrong.emplace_back(Code::kCorrupt, fmt::format("{}/{}: expected the record of {}@{}, found that of {}@{}",
                                                   directory_->path(), name_of(record.id), record.branch,
                                                   record.log_index, found.branch, found.log_index));
  }
  return wrong;
}

Result<std::optional<std::string>> SnapshotFiles::damaged_file(uint64_t id) {
  auto copy = read(name_of(id));
  if (copy || copy.error().code() == Code::kNotFound) return std::nullopt;
  if (copy.error().code() != Code::kCorrupt) return std::unexpected(copy.error());
  return name_of(id);
}

std::string SnapshotFiles::path_of(uint64_t id) const {
  return directory_->path() + "/" + name_of(id);
}

Result<std::vector<SnapshotCopy>> SnapshotFiles::behind(uint64_t last, std::vector<Error>& damaged) {
  std::vector<SnapshotCopy> copies;
  for (const std::string& name : TRY(directory_->list())) {
    if (id_of(name) == 0 || id_of(name) <= last) continue;
    auto copy = read(name);
    if (copy) {
      copies.push_back(std::move(*copy));
    } else if (copy.error().code() == Code::kCorrupt) {
      damaged.push_back(copy.error());
    } else {
      return std::unexpected(copy.error());
    }
  }
  std::ranges::sort(copies, {}, [](const SnapshotCopy& copy) { return copy.record.id; });
  return copies;
}

}  // namespace reprise::store
