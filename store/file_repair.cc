#include "store/file_repair.h"

#include <fmt/format.h>

#include <set>

#include "base/file_lock.h"
#include "base/one_wrong_byte.h"
#include "store/base_directory.h"
#include "store/identity.h"
#include "store/pack_files.h"
#include "store/pack_format.h"

namespace reprise::store {
namespace {

// The bytes with which a file would be in order, if it is one of which a single byte is wrong.
template <class Fits>
Result<std::optional<Bytes>> corrected(Directory& store, std::string_view name, uint64_t limit,
                                       const Fits& fits) {
  auto bytes = store.read_file(name, limit);
  const Code code = bytes ? Code::kCorrupt : bytes.error().code();
  if (!bytes && (code == Code::kCorrupt || code == Code::kNotFound)) return std::nullopt;
  if (!bytes) return std::unexpected(bytes.error());
  if (!correct_byte(*bytes, true, fits)) return std::nullopt;
  return std::move(*bytes);
}

// A file keeps its place until the new one takes it: there is never none. "" if nothing was there.
Result<std::string> replace_keeping(Directory& store, const std::string& name, ByteView bytes) {
  std::string kept = TRY(free_name(store, name));
  if (!TRY(store.exists(name))) {
    TRY(store.replace_file(name, bytes));
    return std::string();
  }
  auto old = store.open(name, OpenMode::kRead);
  if (!old && old.error().code() != Code::kCorrupt) return std::unexpected(old.error());
  if (old) {
    const std::string unfinished = name + ".copy";
    if (TRY(store.exists(unfinished))) TRY(store.unlink(unfinished));
    auto copy = TRY(store.open(unfinished, OpenMode::kCreate));
    TRY(copy_sparsely(**old, 0, *copy));
    TRY(store.rename(unfinished, kept));
  } else {
    TRY(store.rename(name, kept));
  }
  TRY(store.replace_file(name, bytes));
  return kept;
}

Status add_volumes_of_packs(Directory& store, std::set<VolumeId>& volumes) {
  if (!TRY(store.exists("packs"))) return {};
  auto packs = TRY(store.open_directory("packs"));
  for (const PackFile& pack : TRY(list_packs(*packs))) {
    auto file = TRY(packs->open(pack_name(pack.number), OpenMode::kRead));
    Bytes header(kPackHeaderBytes);
    header.resize(TRY(file->pread(header, 0)));
    if (auto volume = volume_of_pack(header)) volumes.insert(*volume);
  }
  return {};
}

}  // namespace

Result<std::string> free_name(Directory& directory, std::string_view name) {
  std::string free = fmt::format("{}.damaged", name);
  for (int n = 2; TRY(directory.exists(free)); ++n) free = fmt::format("{}.damaged-{}", name, n);
  return free;
}

Result<std::optional<FileRepaired>> repair_identity(const std::string& path,
                                                    std::span<const VolumeId> others) {
  auto store = TRY(open_host_directory(path));
  auto read = [&]() -> Result<VolumeId> {
    return decode_identity(TRY(store->read_file(kIdentityFile, kIdentityLimit)), path + "/" + kIdentityFile);
  };
  auto volume = read();
  if (volume) return std::nullopt;
  // Missing, it may be a repair that was interrupted when it had renamed something else than a file.
  const bool gone =
      volume.error().code() == Code::kNotFound && TRY(store->exists(std::string(kIdentityFile) + ".damaged"));
  if (volume.error().code() != Code::kCorrupt && !gone) return std::unexpected(volume.error());
  auto alone = TRY(DirectoryLock::own(path));
  auto fits = [&](ByteView bytes) { return decode_identity(bytes, path).has_value(); };
  auto bytes = TRY(corrected(*store, kIdentityFile, kIdentityLimit, fits));
  if (!bytes) {
    std::set<VolumeId> volumes(others.begin(), others.end());
    TRY(add_volumes_of_packs(*store, volumes));
    if (volumes.size() != 1) {
      return std::unexpected(volume.error().with_context(
          fmt::format("expected segments and packs that name one volume, found {}", volumes.size())));
    }
    bytes = encode_identity(*volumes.begin());
  }
  FileRepaired done{.name = kIdentityFile, .found = volume.error().message(), .set_aside = {}};
  done.set_aside = TRY(replace_keeping(*store, kIdentityFile, *bytes));
  return done;
}

Result<std::optional<FileRepaired>> repair_base(const std::string& path) {
  auto store = TRY(open_host_directory(path));
  auto base = read_base(*store);
  if (base) return std::nullopt;
  if (base.error().code() != Code::kCorrupt) return std::unexpected(base.error());
  auto alone = TRY(DirectoryLock::own(path));
  auto fits = [&](ByteView bytes) { return decode_base(bytes, path).has_value(); };
  auto bytes = TRY(corrected(*store, kBaseFile, kBaseLimit, fits));
  if (!bytes) {
    return fail(
        Code::kCorrupt,
        fmt::format("{}; more of it is wrong than one byte, and nothing else names that directory: put "
                    "the file back, or take it away if the store rests on none",
                    base.error().message()));
  }
  FileRepaired done{.name = kBaseFile, .found = base.error().message(), .set_aside = {}};
  done.set_aside = TRY(replace_keeping(*store, kBaseFile, *bytes));
  return done;
}

}  // namespace reprise::store
