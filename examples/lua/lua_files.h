/* Lua's io and os, on a guest instead of on the host. */
#ifndef LUA_FILES_H
#define LUA_FILES_H

#include <lua.h>

#include "reprise.h"

/* Opens the standard libraries, in which every file is the guest's: io.open, io.lines, io.input, io.output,
 * os.remove, os.rename, os.tmpname, dofile, loadfile and require; and a table `files` with list and mkdir.
 * What would reach the host (io.popen, os.execute, C modules) is taken out. Standard input and output stay
 * the host's. lua_close before the guest is detached: it closes the files that are open. */
void open_libraries_on(lua_State* lua, reprise_guest* guest);

#endif
