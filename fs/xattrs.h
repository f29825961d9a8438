// Extended attributes of one inode: a sorted, immutable string of bytes (fs/node.h). Inside fs/ and for
// snapshot/.
#pragma once

#include <functional>
#include <optional>

#include "fs/node.h"

namespace reprise::fs::xattrs {

// Null stands for "none" throughout.
std::optional<ByteView> find(const Xattrs* all, std::string_view name);
void for_each(const Xattrs* all, const std::function<bool(std::string_view name, ByteView value)>& visit);
// A new node with the attribute set, the old one untouched.
Xattrs* with(const Xattrs* all, std::string_view name, ByteView value);
// A new node without it, null if none is left.
Xattrs* without(const Xattrs* all, std::string_view name);
// Bytes of all names and values together.
size_t total_bytes(const Xattrs* all);
// Is the node's encoding what with() would make?
bool valid(const Xattrs& all);

}  // namespace reprise::fs::xattrs
