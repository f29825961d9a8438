// A fuzz target: a function that any bytes must leave unharmed, or it aborts. What it checks besides are laws
// that hold for every input it accepts, and how much memory it takes (memory.h).
//
// Each X_fuzz.cc defines one, fuzz_X, and is built twice: into the ordinary test program, which puts seeds
// and regressions to it, and, with clang, into X_fuzz, which libFuzzer drives (tools/fuzz).
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"

namespace reprise::fuzz {

// A batch: a number of words (u16) that its message has, then message and body. Its checksum always matches.
void fuzz_batch(ByteView input);
// A segment file behind a byte of flags: 1: put its checksums right first, so that it is the fields behind
// them that are tried; the rest, shifted: what the catalogue says is durable.
void fuzz_segment(ByteView input);
// A compressed segment behind a byte of flags: 1: put its checksums right first; 2: it is not compressed yet
// (compressed_fuzz.cc says what is there instead); the rest, shifted: what the catalogue says is durable.
void fuzz_compressed(ByteView input);
// A journal's folder of several files: what the catalogue says is durable (u8), then for each file what it is
// (u8: sequence number and how it is mended), a length (u16) and its bytes.
void fuzz_folder(ByteView input);
// Which small store (u8), then up to six ways to damage its files (store_fuzz.cc): repaired, as a whole.
void fuzz_store(ByteView input);
// Pieces of a tree as a peer sends them.
void fuzz_tree_stream(ByteView input);
// Frames of a connection behind a byte of flags: 128: put their checksums right first; the rest: how many
// bytes arrive at a time, less one.
void fuzz_wire(ByteView input);
// The same, put to a whole leader or follower: a byte of flags (128: mend; 64: to a leader; 32: to a follower
// that is new; the rest: the size of the pieces in which they arrive, as a power of two), then frames.
void fuzz_session(ByteView input);
// A ZIP.
void fuzz_zip(ByteView input);
// A tar behind a byte of flags: 1: put the checksums of its headers right first.
void fuzz_tar(ByteView input);

struct Target {
  const char* name;
  void (*run)(ByteView input);
  std::vector<Bytes> (*seeds)();  // inputs that are accepted
};
const std::vector<Target>& targets();

// store_fuzz.cc
std::vector<Bytes> store_seeds();
// archive_seeds.cc
std::vector<Bytes> zip_seeds();
std::vector<Bytes> tar_seeds();

}  // namespace reprise::fuzz

#ifdef REPRISE_LIBFUZZER
#define REPRISE_FUZZ_TARGET(run)                                            \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { \
    run(reprise::ByteView(reinterpret_cast<const std::byte*>(data), size)); \
    return 0;                                                               \
  }
#else
#define REPRISE_FUZZ_TARGET(run)
#endif
