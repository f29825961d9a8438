#include "store/records.h"

#include <fmt/format.h>

#include "base/hash.h"
#include "store/store.h"

namespace reprise::store {
namespace {

constexpr uint8_t kRecordVersion = 0;
constexpr uint8_t kBranchVersion = 1;  // 0 ended with the durable hint

class Writer {
 public:
  explicit Writer(uint8_t version = kRecordVersion) { value(version); }
  template <class T>
  Writer& value(const T& v) {
    append_value(out_, v);
    return *this;
  }
  Writer& bytes(ByteView v) {
    append_value(out_, static_cast<uint32_t>(v.size()));
    append_bytes(out_, v);
    return *this;
  }
  Writer& text(std::string_view v) { return bytes(as_bytes(v)); }
  Writer& digest(const Digest128& v) { return value(v.lo).value(v.hi); }
  Writer& time(const Timestamp& v) { return value(v.sec).value(v.nsec); }
  Bytes take() { return std::move(out_); }
  Bytes sealed() {
    append_value(out_, hash64(out_));
    return std::move(out_);
  }

 private:
  Bytes out_;
};

class Reader {
 public:
  explicit Reader(ByteView bytes, uint8_t newest = kRecordVersion) : in_(bytes) {
    version_ = value<uint8_t>();
    ok_ = version_ <= newest;
  }
  uint8_t version() const { return version_; }
  static Reader sealed(ByteView bytes, uint8_t newest = kRecordVersion) {
    if (bytes.size() < sizeof(uint64_t)) return Reader({});
    ByteView record = bytes.first(bytes.size() - sizeof(uint64_t));
    bool sound = load_value<uint64_t>(record.data() + record.size()) == hash64(record);
    return Reader(sound ? record : ByteView{}, newest);
  }
  template <class T>
  T value() {
    return in_.value<T>();
  }
  ByteView bytes(size_t limit) {
    auto size = in_.value<uint32_t>();
    if (size > limit) ok_ = false;
    return ok_ ? in_.take(size) : ByteView{};
  }
  std::string text(size_t limit = kCatalogueTextLimit) { return std::string(as_text(bytes(limit))); }
  Digest128 digest() {
    Digest128 out;
    out.lo = value<uint64_t>();
    out.hi = value<uint64_t>();
    return out;
  }
  Timestamp time() {
    Timestamp out;
    out.sec = value<int64_t>();
    out.nsec = value<uint32_t>();
    if (out.nsec >= 1'000'000'000) ok_ = false;
    return out;
  }
  template <class Record>
  std::optional<Record> done(Record record) {
    if (!ok_ || !in_.at_end()) return std::nullopt;
    return record;
  }

 private:
  ByteReader in_;
  uint8_t version_ = 0;
  bool ok_ = true;
};

Status check_length(std::string_view what, size_t found, size_t limit) {
  if (found <= limit) return {};
  return fail(Code::kInvalidArgument, fmt::format("{}: expected at most {}, found {}", what, limit, found));
}

}  // namespace

Bytes encode(const SnapshotRecord& r) {
  return Writer()
      .value(r.id)
      .text(r.branch)
      .text(r.label)
      .value(static_cast<uint8_t>(r.checkpoint))
      .time(r.time)
      .digest(r.root)
      .value(r.log_index)
      .bytes(r.vector)
      .digest(r.digest)
      .value(r.lamport)
      .value(r.inodes)
      .value(r.bytes)
      .value(r.stored_bytes)
      .sealed();
}

template <>
std::optional<SnapshotRecord> decode(ByteView bytes) {
  Reader in = Reader::sealed(bytes);
  SnapshotRecord r;
  r.id = in.value<uint64_t>();
  r.branch = in.text();
  r.label = in.text();
  r.checkpoint = in.value<uint8_t>() != 0;
  r.time = in.time();
  r.root = in.digest();
  r.log_index = in.value<uint64_t>();
  ByteView vector = in.bytes(kCatalogueVectorLimit);
  r.vector.assign(vector.begin(), vector.end());
  r.digest = in.digest();
  r.lamport = in.value<uint64_t>();
  r.inodes = in.value<uint64_t>();
  r.bytes = in.value<uint64_t>();
  r.stored_bytes = in.value<uint64_t>();
  return in.done(std::move(r));
}

Bytes encode(const MarkRecord& r) {
  return Writer().text(r.name).text(r.branch).value(r.log_index).text(r.token).time(r.time).sealed();
}

template <>
std::optional<MarkRecord> decode(ByteView bytes) {
  Reader in = Reader::sealed(bytes);
  MarkRecord r;
  r.name = in.text();
  r.branch = in.text();
  r.log_index = in.value<uint64_t>();
  r.token = in.text(kCatalogueTokenLimit);
  r.time = in.time();
  return in.done(std::move(r));
}

Bytes encode(const BranchRecord& r) {
  Writer out(kBranchVersion);
  out.text(r.name).value(r.durable_hint).value(r.journal_begins);
  out.value(static_cast<uint32_t>(r.writers.size()));
  for (OriginId writer : r.writers) out.value(writer.hi).value(writer.lo);
  return out.sealed();
}

template <>
std::optional<BranchRecord> decode(ByteView bytes) {
  Reader in = Reader::sealed(bytes, kBranchVersion);
  BranchRecord r;
  r.name = in.text();
  r.durable_hint = in.value<uint64_t>();
  r.journal_begins = 0;
  if (in.version() == 0) return in.done(std::move(r));
  r.journal_begins = in.value<uint64_t>();
  auto writers = in.value<uint32_t>();
  for (uint32_t i = 0; i < writers && writers <= kBranchWritersMax; ++i) {
    OriginId writer;
    writer.hi = in.value<uint64_t>();
    writer.lo = in.value<uint64_t>();
    r.writers.push_back(writer);
  }
  return in.done(std::move(r));
}

Bytes encode(const BlobPlace& place) {
  return Writer()
      .value(place.pack)
      .value(place.offset)
      .value(place.stored_bytes)
      .value(static_cast<uint8_t>(place.refers_to_none))
      .take();
}

template <>
std::optional<BlobPlace> decode(ByteView bytes) {
  Reader in(bytes);
  BlobPlace place;
  place.pack = in.value<uint32_t>();
  place.offset = in.value<uint64_t>();
  place.stored_bytes = in.value<uint32_t>();
  place.refers_to_none = in.value<uint8_t>() != 0;
  return in.done(place);
}

Status check(const SnapshotRecord& record) {
  TRY(Store::check_name("branch", record.branch));
  TRY(check_length("label", record.label.size(), kCatalogueTextLimit));
  return check_length("vector", record.vector.size(), kCatalogueVectorLimit);
}

Status check(const MarkRecord& record) {
  TRY(Store::check_name("branch", record.branch));
  TRY(Store::check_name("mark", record.name));
  return check_length("token", record.token.size(), kCatalogueTokenLimit);
}

Status check(const BranchRecord& record) {
  TRY(check_length("writers of a branch", record.writers.size(), kBranchWritersMax));
  return Store::check_name("branch", record.name);
}

}  // namespace reprise::store
