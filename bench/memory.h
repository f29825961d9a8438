// What this process, and the kernel, take of the machine's memory. In bytes. Threads: what others take at the
// same time is counted, too.
#pragma once

#include <functional>

namespace reprise::bench {

// Of this process. What the allocator holds without need goes back first.
double resident_bytes();
// Likewise, but for files that are mapped, of which the kernel takes back what it needs.
double anonymous_bytes();

// What `work` takes at its peak, besides what was there.
double peak_of(const std::function<void()>& work);

// Of the kernel's own objects, those of a tmpfs among them: its inodes and names, but not the bytes of files.
double kernel_bytes();

}  // namespace reprise::bench
