// Control messages to bytes and back. KJ's exceptions stop here.
#include <capnp/message.h>
#include <capnp/serialize.h>
#include <fmt/format.h>
#include <kj/exception.h>

#include <algorithm>
#include <cstring>

#include "base/hash.h"
#include "replay/session.capnp.h"
#include "replay/wire.h"

namespace reprise::replay {
namespace {

using WireCode = schema::Refuse::Code;
struct CodeName {
  Code code;
  WireCode wire;
};
// The first entry of a code or of a wire code is the one it is translated to; what is not here is OTHER.
constexpr CodeName kCodes[] = {
    {Code::kCorrupt, WireCode::MALFORMED},         {Code::kUnsupported, WireCode::VERSION},
    {Code::kWrongVolume, WireCode::WRONG_VOLUME},  {Code::kGap, WireCode::GAP},
    {Code::kDivergence, WireCode::DIVERGENCE},     {Code::kDetached, WireCode::DETACHED},
    {Code::kCancelled, WireCode::STOPPING},        {Code::kTimeout, WireCode::SILENT},
    {Code::kUnauthorised, WireCode::UNAUTHORISED},
};
WireCode to_wire(Code code) {
  for (const CodeName& entry : kCodes)
    if (entry.code == code) return entry.wire;
  return WireCode::OTHER;
}
Code from_wire(WireCode wire) {
  for (const CodeName& entry : kCodes)
    if (entry.wire == wire) return entry.code;
  return Code::kUnreachable;
}

kj::ArrayPtr<const kj::byte> as_kj(ByteView bytes) {
  return {reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()};
}

// One line that fits, cut between two characters. What has been shown is shown as it is: so a text that comes
// from a peer may go to another.
std::string shown(std::string_view text, size_t limit) {
  std::string line = one_line(text);
  size_t end = std::min(limit, line.size());
  while (end > 0 && end < line.size() && (line[end] & 0xc0) == 0x80) end--;
  line.resize(end);
  return line;
}

// --- to bytes

template <class Tag>
void put(schema::Id128::Builder out, const Id128<Tag>& id) {
  out.setHi(id.hi);
  out.setLo(id.lo);
}
void put(schema::Id128::Builder out, const Digest128& id) {
  out.setHi(id.hi);
  out.setLo(id.lo);
}
void put(schema::Position::Builder out, const journal::Position& position) {
  out.setVector(as_kj(position.vector.encode()));
  put(out.initDigest(), position.digest);
}
void put(schema::Refuse::Builder out, Code code, const std::string& reason) {
  out.setCode(to_wire(code));
  out.setReason(shown(reason, kTextLimit).c_str());
}
void put(schema::Control::Builder out, const Hello& hello) {
  auto to = out.initHello();
  to.setMinVersion(hello.min_version);
  to.setMaxVersion(hello.max_version);
  put(to.initVolume(), hello.volume);
  to.setBranch(hello.branch.c_str());
  to.setRole(static_cast<schema::Hello::Role>(hello.role));
  put(to.initPosition(), hello.position);
  to.setLamport(hello.lamport);
  to.setIsNew(hello.is_new);
  to.setName(hello.name.c_str());
  to.setHolds(hello.holds);
  to.setOffersTree(hello.offers_tree);
}
void put(schema::Control::Builder out, const Refuse& refuse) {
  put(out.initRefuse(), refuse.code, refuse.reason);
}
void put(schema::Control::Builder out, const Resync& resync) {
  put(out.initResync(), resync.code, resync.reason);
}
void put(schema::Control::Builder out, const Bye& bye) {
  put(out.initBye(), bye.code, bye.reason);
}
void put(schema::Control::Builder out, const CatchUp& catch_up) {
  auto to = out.initCatchUp();
  const CatchUpDecision& decision = catch_up.decision;
  to.setTier(static_cast<uint8_t>(decision.tier));
  to.setEstimatedBytes(decision.estimated_bytes);
  to.setSnapshotBytes(decision.snapshot_bytes);
  to.setSuffixBytes(decision.suffix_bytes.value_or(0));
  to.setSuffixAvailable(decision.suffix_bytes.has_value());
  to.setDifferenceBytes(decision.difference_bytes.value_or(0));
  to.setDifferenceAvailable(decision.difference_bytes.has_value());
  to.setReason(shown(decision.reason, kTextLimit).c_str());
  to.setTarget(as_kj(catch_up.target.encode()));
}
void put(schema::SnapshotBegin::Builder to, const SnapshotBegin& begin) {
  put(to.initPosition(), begin.position);
  to.setLamport(begin.lamport);
  auto marks = to.initMarks(static_cast<unsigned>(begin.marks.size()));
  for (unsigned i = 0; i < marks.size(); i++) {
    marks[i].setName(begin.marks[i].name.c_str());
    marks[i].setToken(begin.marks[i].token.c_str());
  }
}
void put(schema::Control::Builder out, const SnapshotBegin& begin) {
  put(out.initSnapshotBegin(), begin);
}
void put(schema::Control::Builder out, const DifferenceBegin& begin) {
  put(out.initDifferenceBegin(), static_cast<const SnapshotBegin&>(begin));
}
void put(schema::Control::Builder out, const DifferenceEnd& end) {
  out.setDifferenceEnd(end.batches);
}
void put(schema::Control::Builder out, const Held& held) {
  auto to = out.initHeld();
  auto blobs = to.initBlobs(static_cast<unsigned>(held.blobs.size() * sizeof(uint64_t)));
  for (size_t i = 0; i < held.blobs.size(); i++)
    store_value(reinterpret_cast<std::byte*>(blobs.begin()) + i * sizeof(uint64_t), held.blobs[i]);
  to.setLast(held.last);
}
void put(schema::Control::Builder out, const SnapshotEnd& end) {
  auto to = out.initSnapshotEnd();
  put(to.initRoot(), end.root);
  to.setBytes(end.bytes);
}
void put(schema::Control::Builder out, const Checkpoint& checkpoint) {
  put(out.initCheckpoint(), checkpoint.position);
}
void put(schema::Control::Builder out, const Ack& ack) {
  auto to = out.initAck();
  to.setVector(as_kj(ack.vector.encode()));
  to.setBytes(ack.bytes);
}
void put(schema::Control::Builder out, const Heartbeat& heartbeat) {
  out.initHeartbeat().setVector(as_kj(heartbeat.vector.encode()));
}
void put(schema::Control::Builder out, const Fetch& fetch) {
  out.initFetch().setVector(as_kj(fetch.vector.encode()));
}
void put(schema::Control::Builder out, const Fetched& fetched) {
  out.initFetched().setMissing(shown(fetched.missing, kTextLimit).c_str());
}
void put(schema::Control::Builder out, const Challenge& challenge) {
  out.initChallenge().setNonce(as_kj(challenge.nonce));
}
void put(schema::Control::Builder out, const Proof& proof) {
  out.initProof().setMac(as_kj(proof.mac));
}
void put(schema::Control::Builder out, const Sync&) {
  out.setSync();
}
void put(schema::Control::Builder out, const Synced& synced) {
  out.setSynced(as_kj(synced.vector.encode()));
}

// --- from bytes

template <class Id>
Id id_of(schema::Id128::Reader in) {
  Id out;
  out.hi = in.getHi();
  out.lo = in.getLo();
  return out;
}
Result<journal::Vector> vector_of(capnp::Data::Reader in) {
  return journal::Vector::decode({reinterpret_cast<const std::byte*>(in.begin()), in.size()});
}
Result<journal::Position> position_of(schema::Position::Reader in) {
  return journal::Position{.vector = TRY(vector_of(in.getVector())),
                           .digest = id_of<Digest128>(in.getDigest())};
}
constexpr size_t kNameLimit = 64;  // of a branch or a mark

// Below, what TRY may leave early is never inside a braced list behind a member that owns memory: g++ 12
// would leak it.

// Text of a peer, safe to print.
Result<std::string> text_of(capnp::Text::Reader in, size_t limit) {
  if (in.size() > limit)
    return fail(Code::kCorrupt, fmt::format("a text has {} bytes, expected at most {}", in.size(), limit));
  return shown({in.begin(), in.size()}, limit);
}
Result<Control> hello_of(schema::Hello::Reader in) {
  if (in.getRole() > schema::Hello::Role::WRITER) return fail(Code::kUnsupported, "unknown role of a peer");
  std::string branch = TRY(text_of(in.getBranch(), kNameLimit));
  std::string name = TRY(text_of(in.getName(), kNameLimit));
  journal::Position position = TRY(position_of(in.getPosition()));
  return Hello{.min_version = in.getMinVersion(),
               .max_version = in.getMaxVersion(),
               .volume = id_of<VolumeId>(in.getVolume()),
               .branch = std::move(branch),
               .role = static_cast<Role>(in.getRole()),
               .position = std::move(position),
               .lamport = in.getLamport(),
               .is_new = in.getIsNew(),
               .name = std::move(name),
               .holds = in.getHolds(),
               .offers_tree = in.getOffersTree()};
}
Result<Control> held_of(schema::Held::Reader in) {
  capnp::Data::Reader blobs = in.getBlobs();
  if (blobs.size() % sizeof(uint64_t) != 0)
    return fail(Code::kCorrupt, fmt::format("a list of blobs of {} bytes", blobs.size()));
  Held held{.last = in.getLast()};
  held.blobs.resize(blobs.size() / sizeof(uint64_t));
  for (size_t i = 0; i < held.blobs.size(); i++)
    held.blobs[i] =
        load_value<uint64_t>(reinterpret_cast<const std::byte*>(blobs.begin()) + i * sizeof(uint64_t));
  return held;
}
Result<Control> catch_up_of(schema::CatchUp::Reader in) {
  std::string reason = TRY(text_of(in.getReason(), kTextLimit));
  CatchUpDecision decision{.tier = static_cast<Tier>(in.getTier()),
                           .estimated_bytes = in.getEstimatedBytes(),
                           .snapshot_bytes = in.getSnapshotBytes(),
                           .reason = std::move(reason)};
  if (in.getSuffixAvailable()) decision.suffix_bytes = in.getSuffixBytes();
  if (in.getDifferenceAvailable()) decision.difference_bytes = in.getDifferenceBytes();
  if (decision.tier > Tier::kSnapshot)
    return fail(Code::kUnsupported,
                fmt::format("catch-up of kind {}, which this version does not know", in.getTier()));
  journal::Vector target = TRY(vector_of(in.getTarget()));
  return CatchUp{.decision = std::move(decision), .target = std::move(target)};
}
Result<SnapshotBegin> snapshot_begin_of(schema::SnapshotBegin::Reader in) {
  SnapshotBegin begin{.position = TRY(position_of(in.getPosition())), .lamport = in.getLamport()};
  if (in.getMarks().size() > kMarksMax) {
    return fail(Code::kCorrupt, fmt::format("a snapshot with {} marks, expected at most {}",
                                            in.getMarks().size(), kMarksMax));
  }
  for (schema::Mark::Reader mark : in.getMarks()) {
    std::string name = TRY(text_of(mark.getName(), kNameLimit));
    std::string token = TRY(text_of(mark.getToken(), kMarksBytesMax));
    begin.marks.push_back({std::move(name), std::move(token)});
  }
  return begin;
}
Result<std::array<std::byte, 32>> bytes32_of(capnp::Data::Reader in) {
  std::array<std::byte, 32> out;
  if (in.size() != out.size())
    return fail(Code::kCorrupt, fmt::format("expected {} bytes, found {}", out.size(), in.size()));
  std::memcpy(out.data(), in.begin(), out.size());
  return out;
}
template <class T>
Result<Control> refusal_of(schema::Refuse::Reader in) {
  std::string reason = TRY(text_of(in.getReason(), kTextLimit));
  return T{.code = from_wire(in.getCode()), .reason = std::move(reason)};
}

Result<Control> control_of(schema::Control::Reader in) {
  using Kind = schema::Control::Which;
  switch (in.which()) {
    case Kind::HELLO:
      return hello_of(in.getHello());
    case Kind::REFUSE:
      return refusal_of<Refuse>(in.getRefuse());
    case Kind::CATCH_UP:
      return catch_up_of(in.getCatchUp());
    case Kind::SNAPSHOT_BEGIN:
      return TRY(snapshot_begin_of(in.getSnapshotBegin()));
    case Kind::DIFFERENCE_BEGIN:
      return DifferenceBegin{TRY(snapshot_begin_of(in.getDifferenceBegin()))};
    case Kind::DIFFERENCE_END:
      return DifferenceEnd{.batches = in.getDifferenceEnd()};
    case Kind::HELD:
      return held_of(in.getHeld());
    case Kind::SNAPSHOT_END:
      return SnapshotEnd{.root = id_of<BlobId>(in.getSnapshotEnd().getRoot()),
                         .bytes = in.getSnapshotEnd().getBytes()};
    case Kind::CHECKPOINT:
      return Checkpoint{.position = TRY(position_of(in.getCheckpoint()))};
    case Kind::ACK:
      return Ack{.vector = TRY(vector_of(in.getAck().getVector())), .bytes = in.getAck().getBytes()};
    case Kind::HEARTBEAT:
      return Heartbeat{.vector = TRY(vector_of(in.getHeartbeat().getVector()))};
    case Kind::RESYNC:
      return refusal_of<Resync>(in.getResync());
    case Kind::BYE:
      return refusal_of<Bye>(in.getBye());
    case Kind::FETCH:
      return Fetch{.vector = TRY(vector_of(in.getFetch().getVector()))};
    case Kind::FETCHED:
      return Fetched{.missing = TRY(text_of(in.getFetched().getMissing(), kTextLimit))};
    case Kind::CHALLENGE:
      return Challenge{.nonce = TRY(bytes32_of(in.getChallenge().getNonce()))};
    case Kind::PROOF:
      return Proof{.mac = TRY(bytes32_of(in.getProof().getMac()))};
    case Kind::SYNC:
      return Sync{};
    case Kind::SYNCED:
      return Synced{.vector = TRY(vector_of(in.getSynced()))};
  }
  return fail(Code::kUnsupported, fmt::format("control message of kind {}, which this version does not know",
                                              static_cast<unsigned>(in.which())));
}

}  // namespace

Result<Bytes> encode_control(const Control& control) {
  capnp::MallocMessageBuilder message;
  std::visit([&](const auto& value) { put(message.initRoot<schema::Control>(), value); }, control);
  kj::Array<capnp::word> words = capnp::messageToFlatArray(message);
  ByteView payload{reinterpret_cast<const std::byte*>(words.begin()), words.size() * sizeof(capnp::word)};
  if (payload.size() > kControlLimit)
    return fail(Code::kUnsupported,
                fmt::format("a control message would have {} bytes, at most {} can be sent", payload.size(),
                            kControlLimit));
  auto header = control_frame_header(payload);
  Bytes out;
  out.reserve(header.size() + payload.size());
  append_bytes(out, header);
  append_bytes(out, payload);
  return out;
}

Result<Control> decode_control(ByteView payload) {
  if (payload.size() > kControlLimit || payload.size() % sizeof(capnp::word) != 0)
    return fail(Code::kCorrupt,
                fmt::format("malformed message: a control message of {} bytes", payload.size()));
  // The reader wants words, aligned.
  std::vector<uint64_t> words(payload.size() / sizeof(capnp::word));
  std::copy(payload.begin(), payload.end(), reinterpret_cast<std::byte*>(words.data()));
  capnp::ReaderOptions options;
  options.traversalLimitInWords = words.size() * 2 + 64;
  options.nestingLimit = 8;
  std::optional<Result<Control>> out;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                 capnp::FlatArrayMessageReader reader(
                     {reinterpret_cast<const capnp::word*>(words.data()), words.size()}, options);
                 out = control_of(reader.getRoot<schema::Control>());
               })) {
    return fail(Code::kCorrupt, fmt::format("malformed message: {}", exception->getDescription().cStr()));
  }
  return std::move(*out);
}

}  // namespace reprise::replay
