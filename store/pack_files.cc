#include "store/pack_files.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <charconv>

#include "store/blob.h"

namespace reprise::store {
namespace {

struct DecompressorDeleter {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

}  // namespace

std::string pack_name(uint32_t number) {
  return fmt::format("{:08}.pack", number);
}

uint32_t pack_number(std::string_view name) {
  uint32_t number = 0;
  if (name.size() != 13 || !name.ends_with(".pack")) return 0;
  const char *begin = name.data(), *dot = begin + 8;
  auto [end, error] = std::from_chars(begin, dot, number);
  return error == std::errc{} && end == dot ? number : 0;
}

Result<std::vector<PackFile>> list_packs(Directory& packs) {
  std::vector<PackFile> found;
  for (const std::string& name : TRY(packs.list())) {
    uint32_t number = pack_number(name);
    if (number == 0) continue;
    auto file = packs.open(name, OpenMode::kRead);
    if (!file && file.error().code() == Code::kNotFound) continue;  // taken away meanwhile
    if (!file && file.error().code() == Code::kCorrupt) continue;   // no file
    if (!file) return std::unexpected(file.error());
    found.push_back({number, TRY((*file)->size())});
  }
  return found;
}

Result<std::vector<NoPack>> list_no_packs(Directory& packs) {
  std::vector<NoPack> found;
  for (const std::string& name : TRY(packs.list())) {
    if (pack_number(name) == 0) continue;
    auto file = packs.open(name, OpenMode::kRead);
    if (!file && file.error().code() == Code::kCorrupt) found.push_back({name, file.error()});
  }
  return found;
}

Result<OwnedPack> create_pack(Directory& packs, const OwnPack& own, uint32_t above) {
  uint32_t number = above + 1;
  for (const std::string& name : TRY(packs.list())) number = std::max(number, pack_number(name) + 1);
  for (;; number++) {
    std::string name = pack_name(number);
    auto file = packs.open(name, OpenMode::kCreate);
    if (!file && file.error().code() == Code::kAlreadyExists) continue;  // another writer was faster
    if (!file) return std::unexpected(file.error());
    // Nobody takes it from us before it is locked: an empty pack is left alone.
    auto lock = own(packs.path() + "/" + name);
    if (!lock && lock.error().code() == Code::kBusy) continue;  // somebody looks whether it is of use
    if (!lock) return std::unexpected(lock.error());
    return OwnedPack{number, std::move(*file), std::move(*lock)};
  }
}

std::unexpected<Error> damaged_blob(const Directory& packs, BlobId id, const BlobPlace& place,
                                    std::string_view found) {
  return fail(Code::kCorrupt, fmt::format("{}/{}: expected blob {} at offset {}, found {}", packs.path(),
                                          pack_name(place.pack), id.to_string(), place.offset, found));
}

Result<Bytes> unpack_blob(const Directory& packs, BlobId id, const BlobPlace& place, ByteView frame,
                          BlobHash hash) {
  auto damaged = [&](std::string_view found) { return damaged_blob(packs, id, place, found); };
  auto header = decode_blob_header(frame);
  if (!header) return damaged("no valid blob header");
  if (header->id != id || header->stored_bytes != place.stored_bytes) return damaged("another blob");
  ByteView payload = frame.subspan(kBlobHeaderBytes);
  if (payload.size() != header->stored_bytes) return damaged("the end of the pack");
  Bytes raw(header->raw_bytes);
  if (header->codec == Codec::kRaw) {
    if (payload.size() != raw.size()) return damaged("another size");
    std::ranges::copy(payload, raw.begin());
  } else {
    // One each per thread: making one costs more than most blobs.
    static thread_local std::unique_ptr<ZSTD_DCtx, DecompressorDeleter> context(ZSTD_createDCtx());
    size_t n = ZSTD_decompressDCtx(context.get(), raw.data(), raw.size(), payload.data(), payload.size());
    if (ZSTD_isError(n) || n != raw.size()) return damaged("bytes that do not decompress to it");
  }
  if (hash(raw) != id) return damaged("bytes with another hash");
  return raw;
}

}  // namespace reprise::store
