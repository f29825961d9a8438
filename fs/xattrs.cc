#include "fs/xattrs.h"

#include <vector>

namespace reprise::fs::xattrs {
namespace {

constexpr size_t kEntryHeader = 1 + 4;  // name length, value length

struct Entry {
  std::string_view name;
  ByteView value;
};

// Takes one entry off the front; false at the end or when the bytes are no entry.
bool take(ByteReader& reader, Entry& entry) {
  if (reader.remaining() == 0) return false;
  auto name_length = reader.value<uint8_t>();
  auto value_length = reader.value<uint32_t>();
  entry.name = as_text(reader.take(name_length));
  entry.value = reader.take(value_length);
  return reader.ok();
}

Xattrs* build(const std::vector<Entry>& entries) {
  if (entries.empty()) return nullptr;
  size_t length = 0;
  for (const Entry& entry : entries) length += kEntryHeader + entry.name.size() + entry.value.size();
  Xattrs* node = Xattrs::create(static_cast<uint32_t>(length));
  std::byte* to = node->bytes();
  for (const Entry& entry : entries) {
    store_value(to, static_cast<uint8_t>(entry.name.size()));
    store_value(to + 1, static_cast<uint32_t>(entry.value.size()));
    std::memcpy(to + kEntryHeader, entry.name.data(), entry.name.size());
    to += kEntryHeader + entry.name.size();
    if (!entry.value.empty()) std::memcpy(to, entry.value.data(), entry.value.size());
    to += entry.value.size();
  }
  node->count = static_cast<uint16_t>(entries.size());
  return node;
}

std::vector<Entry> entries_without(const Xattrs* all, std::string_view name) {
  std::vector<Entry> entries;
  for_each(all, [&](std::string_view other, ByteView value) {
    if (other != name) entries.push_back({other, value});
    return true;
  });
  return entries;
}

}  // namespace

void for_each(const Xattrs* all, const std::function<bool(std::string_view, ByteView)>& visit) {
  if (all == nullptr) return;
  ByteReader reader(all->view());
  Entry entry;
  while (take(reader, entry)) {
    if (!visit(entry.name, entry.value)) return;
  }
}

std::optional<ByteView> find(const Xattrs* all, std::string_view name) {
  std::optional<ByteView> found;
  for_each(all, [&](std::string_view other, ByteView value) {
    if (other == name) found = value;
    return !found;
  });
  return found;
}

Xattrs* with(const Xattrs* all, std::string_view name, ByteView value) {
  std::vector<Entry> entries = entries_without(all, name);
  auto at = entries.begin();
  while (at != entries.end() && at->name < name) ++at;
  entries.insert(at, {name, value});
  return build(entries);
}

Xattrs* without(const Xattrs* all, std::string_view name) {
  return build(entries_without(all, name));
}

size_t total_bytes(const Xattrs* all) {
  return all == nullptr ? 0 : all->length - all->count * kEntryHeader;
}

bool valid(const Xattrs& all) {
  ByteReader reader(all.view());
  Entry entry;
  std::string_view previous;
  size_t count = 0;
  while (take(reader, entry)) {
    if (entry.name.empty() || entry.name.find('\0') != std::string_view::npos) return false;
    if (count > 0 && entry.name <= previous) return false;
    if (entry.value.size() > kXattrValueMax) return false;
    previous = entry.name;
    count++;
  }
  return reader.at_end() && count == all.count && count > 0 && total_bytes(&all) <= kXattrsMax;
}

}  // namespace reprise::fs::xattrs
