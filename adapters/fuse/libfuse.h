// The one place that says which libfuse interface this folder is written against.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
