// What the FUSE protocol can say and libfuse 3.14 does not pass on: FUSE_HANDLE_KILLPRIV_V2 and FUSE_TMPFILE.
//
// With the first the kernel leaves it to the server to clear set-user-id and set-group-id when somebody
// without privileges writes to a file, and says so in the requests concerned. Without it, it asks for the
// security.capability attribute before every single write: half of all requests of a program that writes.
//
// The second is open(2) with O_TMPFILE. Its request and its answer are those of FUSE_CREATE, which is what
// libfuse is made to take it for.
//
// Threads: what is noted of a request belongs to the worker that serves it.
#pragma once

#include "adapters/fuse/libfuse.h"

namespace reprise::fuse {

// Reads and writes the device as libfuse would, and accepts the offer in the reply to INIT.
const fuse_custom_io& wire_io();
// Whether requests wait to be read from the device.
bool has_requests(int device);

// `request` is what this worker serves next; libfuse is to be given what is left of it.
void note_request(fuse_buf& request);
// The request this worker serves must clear set-user-id and set-group-id of the file it changes.
bool request_kills_privileges();
// The request to create a file is one for a file without a name.
bool request_is_for_unnamed();

}  // namespace reprise::fuse
