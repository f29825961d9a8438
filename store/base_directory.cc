#include "store/base_directory.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/hash.h"

namespace reprise::store {
namespace {

constexpr std::string_view kMagic = "reprise base\n\0\0\0";
constexpr uint32_t kVersion = 0;

// A later version may have its checksum elsewhere.
bool is_ours_but_for_the_version(ByteView bytes) {
  if (bytes.size() < kMagic.size() + sizeof kVersion + sizeof(uint64_t)) return false;
  Bytes ours(bytes.begin(), bytes.end());
  store_value(ours.data() + kMagic.size(), kVersion);
  const size_t checked = ours.size() - sizeof(uint64_t);
  return hash64(ByteView(ours).first(checked)) == load_value<uint64_t>(ours.data() + checked);
}

}  // namespace

// magic 16, version u32, bytes of the path u32, snapshot u64, seconds u64, nanoseconds u32, zero u32, the
// path, checksum u64 of all before it.
Status write_base(Directory& store, const BaseDirectory& base) {
  Bytes out;
  append_bytes(out, as_bytes(kMagic));
  append_value(out, kVersion);
  append_value(out, static_cast<uint32_t>(base.path.size()));
  append_value(out, base.snapshot);
  append_value(out, base.time.sec);
  append_value(out, base.time.nsec);
  append_value(out, uint32_t{0});
  append_bytes(out, as_bytes(base.path));
  append_value(out, hash64(out));
  return store.replace_file(kBaseFile, out);
}

Result<std::optional<BaseDirectory>> read_base(Directory& store) {
  if (!TRY(store.exists(kBaseFile))) return std::nullopt;
  return decode_base(TRY(store.read_file(kBaseFile, kBaseLimit)), store.path() + "/" + kBaseFile);
}

Result<BaseDirectory> decode_base(ByteView bytes, const std::string& file) {
  auto corrupt = [&](std::string_view what) {
    return fail(Code::kCorrupt,
                fmt::format("{}: expected the directory that a store rests on, found {}", file, what));
  };
  ByteReader in(bytes);
  if (!std::ranges::equal(in.take(kMagic.size()), as_bytes(kMagic))) return corrupt("other bytes");
  auto version = in.value<uint32_t>();
  if (in.ok() && version != kVersion && !is_ours_but_for_the_version(bytes))
    return fail(Code::kUnsupported,
                fmt::format("{}: expected version {}, found {}", file, kVersion, version));
  BaseDirectory base;
  auto path_bytes = in.value<uint32_t>();
  base.snapshot = in.value<uint64_t>();
  base.time.sec = in.value<int64_t>();
  base.time.nsec = in.value<uint32_t>();
  in.value<uint32_t>();
  base.path = as_text(in.take(path_bytes));
  if (!in.ok()) return corrupt("fewer bytes");
  const uint64_t expected = hash64(bytes.first(bytes.size() - in.remaining()));
  const auto found = in.value<uint64_t>();
  if (!in.at_end()) return corrupt("more or fewer bytes");
  if (found != expected || version != kVersion || !base.path.starts_with('/'))
    return corrupt("a wrong checksum or path");
  return base;
}

}  // namespace reprise::store
