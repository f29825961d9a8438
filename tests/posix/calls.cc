#include "tests/posix/calls.h"

#include <algorithm>
#include <cstring>

namespace reprise::posix {

Outcome<std::string> Calls::read_file(PathAt path) {
  int fd = TRY(open(path, O_RDONLY));
  std::string bytes;
  auto part = read(fd, 65536);
  for (; part && !part->empty(); part = read(fd, 65536)) bytes += *part;
  TRY(close(fd));
  TRY(part);
  return bytes;
}

Outcome<void> Calls::write_file(PathAt path, std::string_view bytes, uint32_t mode) {
  int fd = TRY(open(path, O_WRONLY | O_CREAT | O_TRUNC, mode));
  Outcome<size_t> put = 0;
  for (; !bytes.empty() && put; bytes.remove_prefix(put.value_or(0))) put = write(fd, bytes);
  TRY(close(fd));
  TRY(put);
  return {};
}

Outcome<std::vector<DirectoryEntry>> Calls::list(PathAt path) {
  int fd = TRY(open(path, O_RDONLY | O_DIRECTORY));
  std::vector<DirectoryEntry> all;
  auto some = read_directory(fd, 256);
  for (; some && !some->empty(); some = read_directory(fd, 256))
    for (DirectoryEntry& entry : *some)
      if (entry.name != "." && entry.name != "..") all.push_back(std::move(entry));
  TRY(close(fd));
  TRY(some);
  std::ranges::sort(all, {}, &DirectoryEntry::name);
  return all;
}

std::string name_of(int error) {
  if (error == 0) return "ok";
  const char* name = strerrorname_np(error);
  return name == nullptr ? "errno " + std::to_string(error) : name;
}

}  // namespace reprise::posix
