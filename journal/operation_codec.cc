#include "journal/operation_codec.h"

#include <fmt/format.h>

#include "fs/types.h"

namespace reprise::journal {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

constexpr uint32_t kNsecPerSecond = 1'000'000'000;
constexpr uint32_t kPermissionBits = 07777;
constexpr uint32_t kTimesMask =
    fs::SetAttributes::kAtime | fs::SetAttributes::kMtime | fs::SetAttributes::kCtime;
constexpr uint32_t kAttributesMask =
    fs::SetAttributes::kMode | fs::SetAttributes::kUid | fs::SetAttributes::kGid | kTimesMask;
constexpr uint64_t kOffsetMax = INT64_MAX;  // as off_t

// --- checks

bool holds(std::string_view text, char c) {
  return text.find(c) != std::string_view::npos;
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= fs::kNameMax && name != "." && name != ".." && !holds(name, '/') &&
         !holds(name, '\0');
}
bool is_xattr_name(std::string_view name) {
  return !name.empty() && name.size() <= fs::kXattrNameMax && !holds(name, '\0');
}
bool is_time(const Timestamp& time) {
  return time.nsec < kNsecPerSecond;
}
bool is_range(uint64_t offset, uint64_t length) {
  return offset <= kOffsetMax && length <= kOffsetMax - offset;
}

bool is_inode_mode(uint32_t mode) {
  if ((mode & ~(S_IFMT | kPermissionBits)) != 0) return false;
  switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
      return true;
    default:
      return false;
  }
}

const char* check_place(InodeId parent, std::string_view name, InodeId inode, const Timestamp& time) {
  if (!parent) return "parent is inode 0";
  if (!is_name(name)) return "name is empty, too long, \".\", \"..\", or has a slash or NUL";
  if (!inode) return "inode 0";
  if (!is_time(time)) return "nanoseconds past a second";
  return nullptr;
}
const char* check_inode(InodeId inode, const Timestamp& time) {
  if (!inode) return "inode 0";
  if (!is_time(time)) return "nanoseconds past a second";
  return nullptr;
}

const char* check(const fs::Create& o) {
  if (!is_inode_mode(o.mode)) return "mode is of no file type";
  if (S_ISLNK(o.mode) == o.target.empty()) return "a symlink has a target, and nothing else has";
  if (o.target.size() > fs::kPathMax || holds(o.target, '\0')) return "target too long or with NUL";
  return check_place(o.parent, o.name, o.inode, o.time);
}
const char* check(const fs::Link& o) {
  return check_place(o.parent, o.name, o.inode, o.time);
}
const char* check(const fs::Unlink& o) {
  return check_place(o.parent, o.name, o.inode, o.time);
}
const char* check(const fs::Rmdir& o) {
  return check_place(o.parent, o.name, o.inode, o.time);
}
const char* check(const fs::Rename& o) {
  if (o.exchange && !o.replaced) return "an exchange with nothing";
  if (const char* wrong = check_place(o.old_parent, o.old_name, o.inode, o.time)) return wrong;
  return check_place(o.new_parent, o.new_name, o.inode, o.time);
}
const char* check(const fs::Write& o) {
  if (!is_range(o.offset, o.data.size())) return "offset past 2^63";
  return check_inode(o.inode, o.time);
}
const char* check(const fs::Truncate& o) {
  if (o.size > kOffsetMax) return "size past 2^63";
  return check_inode(o.inode, o.time);
}
const char* check(const fs::Allocate& o) {
  if (o.change > fs::RangeChange::kInsert) return "unknown change of a range";
  if (!is_range(o.offset, o.length)) return "range past 2^63";
  return check_inode(o.inode, o.time);
}
const char* check(const fs::CopyRange& o) {
  if (!o.from) return "inode 0";
  if (!is_range(o.from_offset, o.length) || !is_range(o.to_offset, o.length)) return "range past 2^63";
  return check_inode(o.to, o.time);
}
const char* check(const fs::SetAttributes& o) {
  if ((o.mask & ~kAttributesMask) != 0) return "unknown attributes";
  if ((o.mode & ~kPermissionBits) != 0) return "mode is more than permission bits";
  if (!is_time(o.atime) || !is_time(o.mtime)) return "nanoseconds past a second";
  return check_inode(o.inode, o.ctime);
}
const char* check(const fs::SetXattr& o) {
  if (!is_xattr_name(o.name)) return "attribute name is empty, too long or has NUL";
  if (o.value.size() > fs::kXattrValueMax) return "attribute value too long";
  return check_inode(o.inode, o.time);
}
const char* check(const fs::RemoveXattr& o) {
  if (!is_xattr_name(o.name)) return "attribute name is empty, too long or has NUL";
  return check_inode(o.inode, o.time);
}
const char* check(const fs::Barrier& o) {
  if (!o.name.empty() && !fs::is_mark(o.name)) return "barrier's name is no mark";
  return is_time(o.time) ? nullptr : "nanoseconds past a second";
}
const char* check(const fs::ClaimPrefix& o) {
  return o.prefix >= 1 && o.prefix <= InodeId::kMaxPrefix ? nullptr : "inode prefix of 0 or past 40 bits";
}
const char* check(const fs::SetLimits&) {
  return nullptr;
}

// --- encoding

capnp::Data::Reader data_of(std::string_view text) {
  return {reinterpret_cast<const capnp::byte*>(text.data()), text.size()};
}

void put_time(const Timestamp& time, schema::Timestamp::Builder to) {
  to.setSec(time.sec);
  to.setNsec(time.nsec);
}

template <class Builder>
void put_place(InodeId parent, std::string_view name, InodeId inode, Builder to) {
  to.setParent(parent.value);
  to.setName(data_of(name));
  to.setInode(inode.value);
}
template <class Builder>
void put_body(BodyRange body, Builder to) {
  to.setBytesOffset(body.offset);
  to.setBytesLength(body.length);
}

struct Encoder {
  BodyRange body;
  schema::Operation::Builder to;

  void operator()(const fs::Create& o) {
    auto create = to.initCreate();
    put_place(o.parent, o.name, o.inode, create);
    create.setMode(o.mode);
    create.setUid(o.uid);
    create.setGid(o.gid);
    create.setRdev(o.rdev);
    if (!o.target.empty()) create.setTarget(data_of(o.target));
    put_time(o.time, to.initTime());
  }
  void operator()(const fs::Link& o) {
    put_place(o.parent, o.name, o.inode, to.initLink());
    put_time(o.time, to.initTime());
  }
  void operator()(const fs::Unlink& o) {
    put_place(o.parent, o.name, o.inode, to.initUnlink());
    put_time(o.time, to.initTime());
  }
  void operator()(const fs::Rmdir& o) {
    put_place(o.parent, o.name, o.inode, to.initRmdir());
    put_time(o.time, to.initTime());
  }
  void operator()(const fs::Rename& o) {
    auto rename = to.initRename();
    rename.setOldParent(o.old_parent.value);
    rename.setOldName(data_of(o.old_name));
    rename.setNewParent(o.new_parent.value);
    rename.setNewName(data_of(o.new_name));
    rename.setInode(o.inode.value);
    rename.setReplaced(o.replaced.value);
    rename.setExchange(o.exchange);
    put_time(o.time, to.initTime());
  }
  void operator()(const fs::Write& o) {
    auto write = to.initWrite();
    write.setInode(o.inode.value);
    write.setOffset(o.offset);
    put_body(body, write);
    put_time(o.time, to.initTime());
  }
  void operator()(const fs::Truncate& o) {
    auto truncate = to.initTruncate();
    truncate.setInode(o.inode.value);
    truncate.setSize(o.size);
    put_time(o.time, to.initTime());
  }
  void operator()(const fs::Allocate& o) {
    auto allocate = to.initAllocate();
    allocate.setInode(o.inode.value);
    allocate.setChange(static_cast<schema::Operation::RangeChange>(o.change));
    allocate.setKeepSize(o.keep_size);
    allocate.setOffset(o.offset);
    allocate.setLength(o.length);
    put_time(o.time, to.initTime());
  }
  void operator()(const fs::CopyRange& o) {
    auto copy = to.initCopyRange();
    copy.setFrom(o.from.value);
    copy.setFromOffset(o.from_offset);
    copy.setTo(o.to.value);
    copy.setToOffset(o.to_offset);
    copy.setLength(o.length);
    put_time(o.time, to.initTime());
  }
  void operator()(const fs::SetAttributes& o) {
    auto set = to.initSetAttributes();
    set.setInode(o.inode.value);
    set.setMask(o.mask);
    set.setMode(o.mode);
    set.setUid(o.uid);
    set.setGid(o.gid);
    if ((o.mask & kTimesMask) == 0) return;
    auto times = set.initTimes(3);
    if ((o.mask & fs::SetAttributes::kAtime) != 0) put_time(o.atime, times[0]);
    if ((o.mask & fs::SetAttributes::kMtime) != 0) put_time(o.mtime, times[1]);
    if ((o.mask & fs::SetAttributes::kCtime) != 0) put_time(o.ctime, times[2]);
  }
  void operator()(const fs::SetXattr& o) {
    auto set = to.initSetXattr();
    set.setInode(o.inode.value);
    set.setName(data_of(o.name));
    put_body(body, set);
    put_time(o.time, to.initTime());
  }
  void operator()(const fs::RemoveXattr& o) {
    auto remove = to.initRemoveXattr();
    remove.setInode(o.inode.value);
    remove.setName(data_of(o.name));
    put_time(o.time, to.initTime());
  }
  void operator()(const fs::Barrier& o) {
    to.initBarrier().setName(data_of(o.name));
    put_time(o.time, to.initTime());
  }
  void operator()(const fs::ClaimPrefix& o) { to.initClaimPrefix().setPrefix(o.prefix); }
  void operator()(const fs::SetLimits& o) {
    auto limits = to.initSetLimits();
    limits.setBytes(o.bytes);
    limits.setInodes(o.inodes);
    limits.setFileSize(o.file_size);
    limits.setDepth(o.depth);
    limits.setNamesPerDirectory(o.names_per_directory);
  }
};

// --- decoding

std::string_view text_of(capnp::Data::Reader data) {
  return {reinterpret_cast<const char*>(data.begin()), data.size()};
}
Timestamp time_of(schema::Timestamp::Reader time) {
  return {.sec = time.getSec(), .nsec = time.getNsec()};
}

template <class Reader>
Result<BodyRange> body_range_of(Reader from, ByteView body) {
  BodyRange range{.offset = from.getBytesOffset(), .length = from.getBytesLength()};
  if (range.offset > body.size() || range.length > body.size() - range.offset) {
    return fail(Code::kCorrupt, fmt::format("expected bytes within a body of {}, found {} at {}", body.size(),
                                            range.length, range.offset));
  }
  return range;
}

template <class Op, class Reader>
Op place_of(Reader from, const Timestamp& time) {
  return {.parent = {from.getParent()},
          .name = text_of(from.getName()),
          .inode = {from.getInode()},
          .time = time};
}

fs::Create create_of(schema::Operation::Create::Reader from, const Timestamp& time) {
  return {.parent = {from.getParent()},
          .name = text_of(from.getName()),
          .inode = {from.getInode()},
          .mode = from.getMode(),
          .uid = from.getUid(),
          .gid = from.getGid(),
          .rdev = from.getRdev(),
          .target = text_of(from.getTarget()),
          .time = time};
}
fs::Rename rename_of(schema::Operation::Rename::Reader from, const Timestamp& time) {
  return {.old_parent = {from.getOldParent()},
          .old_name = text_of(from.getOldName()),
          .new_parent = {from.getNewParent()},
          .new_name = text_of(from.getNewName()),
          .inode = {from.getInode()},
          .replaced = {from.getReplaced()},
          .exchange = from.getExchange(),
          .time = time};
}
fs::Allocate allocate_of(schema::Operation::Allocate::Reader from, const Timestamp& time) {
  // A change beyond those known stays beyond them in eight bits, for check_operation to refuse.
  auto change = std::min<uint16_t>(static_cast<uint16_t>(from.getChange()), UINT8_MAX);
  return {.inode = {from.getInode()},
          .change = static_cast<fs::RangeChange>(change),
          .keep_size = from.getKeepSize(),
          .offset = from.getOffset(),
          .length = from.getLength(),
          .time = time};
}
fs::CopyRange copy_range_of(schema::Operation::CopyRange::Reader from, const Timestamp& time) {
  return {.from = {from.getFrom()},
          .from_offset = from.getFromOffset(),
          .to = {from.getTo()},
          .to_offset = from.getToOffset(),
          .length = from.getLength(),
          .time = time};
}
fs::SetLimits limits_of(schema::Operation::SetLimits::Reader from) {
  return {.bytes = from.getBytes(),
          .inodes = from.getInodes(),
          .file_size = from.getFileSize(),
          .depth = from.getDepth(),
          .names_per_directory = from.getNamesPerDirectory()};
}
Result<fs::SetAttributes> set_attributes_of(schema::Operation::SetAttributes::Reader from) {
  fs::SetAttributes o{.inode = {from.getInode()},
                      .mask = from.getMask(),
                      .mode = from.getMode(),
                      .uid = from.getUid(),
                      .gid = from.getGid()};
  auto times = from.getTimes();
  size_t expected = (o.mask & kTimesMask) != 0 ? 3 : 0;
  if (times.size() != expected) {
    return fail(Code::kCorrupt, fmt::format("expected {} times, found {}", expected, times.size()));
  }
  if (expected != 0) {
    o.atime = time_of(times[0]);
    o.mtime = time_of(times[1]);
    o.ctime = time_of(times[2]);
  }
  return o;
}
Result<DecodedOperation> write_of(schema::Operation::Write::Reader from, const Timestamp& time,
                                  ByteView body) {
  BodyRange range = TRY(body_range_of(from, body));
  return DecodedOperation{fs::Write{.inode = {from.getInode()},
                                    .offset = from.getOffset(),
                                    .data = body.subspan(range.offset, range.length),
                                    .time = time},
                          range};
}
Result<DecodedOperation> set_xattr_of(schema::Operation::SetXattr::Reader from, const Timestamp& time,
                                      ByteView body) {
  BodyRange range = TRY(body_range_of(from, body));
  return DecodedOperation{fs::SetXattr{.inode = {from.getInode()},
                                       .name = text_of(from.getName()),
                                       .value = body.subspan(range.offset, range.length),
                                       .time = time},
                          range};
}

std::unexpected<Error> unsupported(std::string_view kind) {
  return fail(Code::kUnsupported, fmt::format("operation kind {} cannot be read by this version", kind));
}

}  // namespace

const char* check_operation(const fs::Operation& operation) {
  return std::visit([](const auto& o) { return check(o); }, operation);
}

ByteView body_bytes_of(const fs::Operation& operation) {
  if (const auto* write = std::get_if<fs::Write>(&operation)) return write->data;
  if (const auto* set = std::get_if<fs::SetXattr>(&operation)) return set->value;
  return {};
}

size_t text_bytes_of(const fs::Operation& operation) {
  return std::visit(Overloaded{
                        [](const fs::Create& o) { return o.name.size() + o.target.size(); },
                        [](const fs::Rename& o) { return o.old_name.size() + o.new_name.size(); },
                        [](const auto& o) -> size_t {
                          if constexpr (requires { o.name; }) return o.name.size();
                          return 0;
                        },
                    },
                    operation);
}

void encode_operation(const fs::Operation& operation, BodyRange body, schema::Operation::Builder to) {
  std::visit(Encoder{body, to}, operation);
}

Result<DecodedOperation> decode_operation(schema::Operation::Reader from, ByteView body) {
  using Kind = schema::Operation::Which;
  Timestamp time = time_of(from.getTime());
  switch (from.which()) {
    case Kind::CREATE:
      return DecodedOperation{create_of(from.getCreate(), time), {}};
    case Kind::LINK:
      return DecodedOperation{place_of<fs::Link>(from.getLink(), time), {}};
    case Kind::UNLINK:
      return DecodedOperation{place_of<fs::Unlink>(from.getUnlink(), time), {}};
    case Kind::RMDIR:
      return DecodedOperation{place_of<fs::Rmdir>(from.getRmdir(), time), {}};
    case Kind::RENAME:
      return DecodedOperation{rename_of(from.getRename(), time), {}};
    case Kind::WRITE:
      return write_of(from.getWrite(), time, body);
    case Kind::TRUNCATE: {
      auto truncate = from.getTruncate();
      return DecodedOperation{fs::Truncate{{truncate.getInode()}, truncate.getSize(), time}, {}};
    }
    case Kind::ALLOCATE:
      return DecodedOperation{allocate_of(from.getAllocate(), time), {}};
    case Kind::COPY_RANGE:
      return DecodedOperation{copy_range_of(from.getCopyRange(), time), {}};
    case Kind::SET_ATTRIBUTES:
      return DecodedOperation{TRY(set_attributes_of(from.getSetAttributes())), {}};
    case Kind::SET_XATTR:
      return set_xattr_of(from.getSetXattr(), time, body);
    case Kind::REMOVE_XATTR: {
      auto remove = from.getRemoveXattr();
      return DecodedOperation{fs::RemoveXattr{{remove.getInode()}, text_of(remove.getName()), time}, {}};
    }
    case Kind::BARRIER:
      return DecodedOperation{fs::Barrier{text_of(from.getBarrier().getName()), time}, {}};
    case Kind::CLAIM_PREFIX:
      return DecodedOperation{fs::ClaimPrefix{from.getClaimPrefix().getPrefix()}, {}};
    case Kind::SET_LIMITS:
      return DecodedOperation{limits_of(from.getSetLimits()), {}};
    case Kind::PUT_INODE:
      return unsupported("putInode");
    case Kind::DROP_INODE:
      return unsupported("dropInode");
    case Kind::PUT_DENTRY:
      return unsupported("putDentry");
    case Kind::DROP_DENTRY:
      return unsupported("dropDentry");
  }
  return unsupported(fmt::format("{}", static_cast<uint16_t>(from.which())));
}

}  // namespace reprise::journal
