# The journal's schema: one message is one batch. docs/data-model.md says what the operations mean,
# docs/journal-format.md how a message lies in a frame. File bytes travel beside the message, in the batch's body, and are
# addressed by offset, so that a reader can work in place.

@0xd5b0a8b5c2f14e77;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("reprise::journal::schema");

struct Id128 {
  hi @0 :UInt64;
  lo @1 :UInt64;
}

struct Timestamp {
  sec @0 :Int64;   # since 1970-01-01 UTC
  nsec @1 :UInt32; # 0 to 999,999,999
}

struct VectorEntry {
  origin @0 :Id128;
  lsn @1 :UInt64;
}

struct Batch {
  origin @0 :Id128;
  lsn @1 :UInt64;            # dense within the origin, from 1
  lamport @2 :UInt64;        # greater than that of every batch it depends on
  time @3 :Timestamp;        # the origin's clock when the batch closed; decides nothing
  label @4 :Data;            # of the guest whose call this was; may be empty
  dependencies @5 :List(VectorEntry);
  # What the origin had applied of others, as the difference from its previous batch; of origin's own stream, lsn - 1 is
  # implied.
  operations @6 :List(Operation);
  kind @7 :Kind;
  previousOrigin @8 :Id128;  # in an origin's first batch: the retired origin this writer continues; zero if none

  enum Kind {
    ordinary @0;
    originStart @1;          # lsn 1: introduces the origin
    compacted @2;            # the difference of two trees, not a recording; see Operation.putInode and its kin
  }
}


struct Operation {
  time @0 :Timestamp;

  union {
    create :group {
      parent @1 :UInt64;
      name @2 :Data;
      inode @3 :UInt64;
      mode @4 :UInt32;
      uid @5 :UInt32;
      gid @6 :UInt32;
      rdev @7 :UInt64;
      target @8 :Data;
    }
    link :group {
      parent @9 :UInt64;
      name @10 :Data;
      inode @11 :UInt64;
    }
    unlink :group {
      parent @12 :UInt64;
      name @13 :Data;
      inode @14 :UInt64;
    }
    rmdir :group {
      parent @15 :UInt64;
      name @16 :Data;
      inode @17 :UInt64;
    }
    rename :group {
      oldParent @18 :UInt64;
      oldName @19 :Data;
      newParent @20 :UInt64;
      newName @21 :Data;
      inode @22 :UInt64;
      replaced @23 :UInt64;
      exchange @24 :Bool;
    }
    write :group {
      inode @25 :UInt64;
      offset @26 :UInt64;
      bytesOffset @27 :UInt32;
      bytesLength @28 :UInt32;
    }
    truncate :group {
      inode @29 :UInt64;
      size @30 :UInt64;
    }
    allocate :group {
      inode @31 :UInt64;
      change @32 :RangeChange;
      keepSize @33 :Bool;
      offset @34 :UInt64;
      length @35 :UInt64;
    }
    copyRange :group {
      from @36 :UInt64;
      fromOffset @37 :UInt64;
      to @38 :UInt64;
      toOffset @39 :UInt64;
      length @40 :UInt64;
    }
    setAttributes :group {
      inode @41 :UInt64;
      mask @42 :UInt32;
      mode @43 :UInt32;
      uid @44 :UInt32;
      gid @45 :UInt32;
      times @46 :List(Timestamp);    # atime, mtime, ctime; empty when the mask sets none of them
    }
    setXattr :group {
      inode @47 :UInt64;
      name @48 :Data;
      bytesOffset @49 :UInt32;
      bytesLength @50 :UInt32;
    }
    removeXattr :group {
      inode @51 :UInt64;
      name @52 :Data;
    }
    barrier :group {
      name @53 :Data;
    }
    claimPrefix :group {
      prefix @54 :UInt64;
    }
    setLimits :group {
      bytes @55 :UInt64;
      inodes @56 :UInt64;
      fileSize @57 :UInt64;
      depth @58 :UInt32;
      namesPerDirectory @59 :UInt64;
    }

    # State-setting and idempotent, only in compacted batches: what diff emits.
    putInode :group {
      inode @60 :UInt64;
      mode @61 :UInt32;
      uid @62 :UInt32;
      gid @63 :UInt32;
      nlink @64 :UInt32;
      size @65 :UInt64;
      rdev @66 :UInt64;
      target @67 :Data;
      times @68 :List(Timestamp);    # atime, mtime, ctime
    }
    dropInode :group {
      inode @69 :UInt64;
    }
    putDentry :group {
      parent @70 :UInt64;
      name @71 :Data;
      inode @72 :UInt64;
      type @73 :UInt8;
    }
    dropDentry :group {
      parent @74 :UInt64;
      name @75 :Data;
    }
  }

  enum RangeChange {
    reserve @0;
    punch @1;
    zero @2;
    collapse @3;
    insert @4;
  }
}
