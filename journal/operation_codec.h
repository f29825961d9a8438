// One operation as it lies in a batch: between fs::Operation and the schema's Operation.
//
// Values in, values out; no state. What check_operation() accepts is what a batch may hold, on its way in and
// out.
#pragma once

#include "base/error.h"
#include "fs/operation.h"
#include "journal/schema.h"

namespace reprise::journal {

// Where in the batch's body an operation's file bytes lie.
struct BodyRange {
  uint32_t offset = 0;
  uint32_t length = 0;
};

// Null, or what makes this an operation that no batch may hold: a name with '/', an inode id of 0,
// nanoseconds past a second, … Whether it can be applied to some tree is not asked.
const char* check_operation(const fs::Operation& operation);

// The bytes an operation puts in the body: of a Write its data, of a SetXattr its value, otherwise none.
ByteView body_bytes_of(const fs::Operation& operation);
// Likewise what it puts into the message beside its fixed part.
size_t text_bytes_of(const fs::Operation& operation);

void encode_operation(const fs::Operation& operation, BodyRange body, schema::Operation::Builder to);

struct DecodedOperation {
  fs::Operation operation;  // points into the message and the body
  BodyRange body;
};
// kCorrupt when it reaches outside the body, kUnsupported for a kind this build does not read. Does not
// check_operation(). Throws kj::Exception when the message's own pointers are wrong.
Result<DecodedOperation> decode_operation(schema::Operation::Reader from, ByteView body);

}  // namespace reprise::journal
