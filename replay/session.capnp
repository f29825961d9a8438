# Control messages of a session between two instances of a volume. docs/replication.md says how they follow each other
# and how a message lies in a frame. Batches and trees travel in frames of their own kinds, not in here.

@0xb8a3d6fe0c51927a;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("reprise::replay::schema");

struct Id128 {
  hi @0 :UInt64;
  lo @1 :UInt64;
}

struct Position {
  vector @0 :Data;  # journal::Vector::encode: count:u32, then origin.hi, origin.lo, lsn: u64 each
  digest @1 :Id128;
}

struct Control {
  union {
    hello @0 :Hello;
    refuse @1 :Refuse;
    catchUp @2 :CatchUp;
    snapshotBegin @3 :SnapshotBegin;
    snapshotEnd @4 :SnapshotEnd;
    checkpoint @5 :Position;   # the sender, after the batches sent so far
    ack @6 :Ack;
    heartbeat @7 :Heartbeat;
    resync @8 :Refuse;         # a follower asks to be overwritten, and says why
    bye @9 :Refuse;            # the sender leaves in order
    fetch @10 :Fetch;          # a leader asks a follower for the batches that it lacks
    fetched @11 :Fetched;      # a follower has sent them
    challenge @12 :Challenge;  # where there is a token: before the greeting, each way
    proof @13 :Proof;          # then: the sender knows the token
    sync @14 :Void;            # a leader asks that everything sent so far be put on the follower's disk
    synced @15 :Data;          # it is: a vector
    differenceBegin @16 :SnapshotBegin;  # from the tree after the batches sent so far; then batches that nobody journals
    differenceEnd @17 :UInt64; # how many they were
    held @18 :Held;            # a follower says which blobs it need not be sent
  }
}

# The first message in each direction, where there is no token.
struct Hello {
  minVersion @0 :UInt16;       # of this protocol, that the sender speaks
  maxVersion @1 :UInt16;
  volume @2 :Id128;            # zero: new, adopts the leader's
  branch @3 :Text;
  role @4 :Role;
  position @5 :Position;
  lamport @6 :UInt64;
  isNew @7 :Bool;              # nothing was ever applied to the tree
  name @8 :Text;               # what a follower is called, for people
  holds @9 :UInt64;            # bytes of blobs that a follower need not be sent again with a tree
  offersTree @10 :Bool;        # its whole tree is always among these

  enum Role {
    follower @0;
    leader @1;
    writer @2;                 # reserved: both ways
  }
}

struct Refuse {
  code @0 :Code;
  reason @1 :Text;

  enum Code {
    other @0;
    malformed @1;
    version @2;
    wrongVolume @3;
    gap @4;
    divergence @5;
    detached @6;
    stopping @7;
    silent @8;
    unauthorised @9;
  }
}

# How the follower will be brought up to date; what was under way before is void.
struct CatchUp {
  tier @0 :UInt8;              # replay::Tier
  estimatedBytes @1 :UInt64;
  snapshotBytes @2 :UInt64;    # estimated, of the tier not chosen as well
  suffixBytes @3 :UInt64;
  suffixAvailable @4 :Bool;
  reason @5 :Text;
  target @6 :Data;             # the vector at which the follower has caught up
  differenceBytes @7 :UInt64;
  differenceAvailable @8 :Bool;
}

# Then tree frames, then snapshotEnd.
struct SnapshotBegin {
  position @0 :Position;
  lamport @1 :UInt64;
  marks @2 :List(Mark);        # that lie at or before the position; the newest, if there are very many
}

struct Mark {
  name @0 :Text;
  token @1 :Text;              # journal::Position::to_token
}

# Answers a CatchUp by missing blobs: several, the last says so.
struct Held {
  blobs @0 :Data;              # of each id the lower half, u64
  last @1 :Bool;
}

struct SnapshotEnd {
  root @0 :Id128;              # blob
  bytes @1 :UInt64;            # of all tree frames' payloads
}

struct Ack {
  vector @0 :Data;             # applied
  bytes @1 :UInt64;            # received in this session
}

struct Heartbeat {
  vector @0 :Data;             # of the sender, now
}

struct Fetch {
  vector @0 :Data;             # of the leader, now
}

struct Fetched {
  missing @0 :Text;            # why they could not be sent; empty: all were
}

struct Challenge {
  nonce @0 :Data;              # 32 random bytes
}

struct Proof {
  mac @0 :Data;                # 32 bytes
}
