#include "lua_files.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

/* The room that Lua keeps beside each of its states, the same for all coroutines of one interpreter. */
static reprise_guest* guest_of(lua_State* lua) {
  return *(reprise_guest**)lua_getextraspace(lua);
}

/* As luaL_fileresult: true, or nil, what happened and its number. */
static int result_of(lua_State* lua, int result, const char* path) {
  if (result >= 0) {
    lua_pushboolean(lua, 1);
    return 1;
  }
  luaL_pushfail(lua);
  lua_pushfstring(lua, "%s: %s", path, strerror(-result));
  lua_pushinteger(lua, -result);
  return 3;
}

/* --- io: Lua's own files are FILEs, so what reprise_fopen gives has all their methods */

static int close_file(lua_State* lua) {
  luaL_Stream* stream = luaL_checkudata(lua, 1, LUA_FILEHANDLE);
  return luaL_fileresult(lua, fclose(stream->f) == 0, NULL);
}

static int open_file(lua_State* lua) {
  const char* path = luaL_checkstring(lua, 1);
  const char* mode = luaL_optstring(lua, 2, "r");
  luaL_Stream* stream = lua_newuserdata(lua, sizeof *stream);
  stream->closef = NULL; /* not open yet */
  luaL_setmetatable(lua, LUA_FILEHANDLE);
  stream->f = reprise_fopen(guest_of(lua), path, mode);
  if (stream->f == NULL) return result_of(lua, -errno, path);
  stream->closef = close_file;
  return 1;
}

/* What the standard library makes of files that it opens by name, made of io.open. */
static const char* const kPrelude =
    "local open, input, output = io.open, io.input, io.output\n"
    "local function by_name(set, mode)\n"
    "  return function(file)\n"
    "    if type(file) == 'string' then file = assert(open(file, mode)) end\n"
    "    return set(file)\n"
    "  end\n"
    "end\n"
    "io.input, io.output = by_name(input, 'r'), by_name(output, 'w')\n"
    "function io.lines(name, ...)\n"
    "  if name == nil then return input():lines(...) end\n"
    "  local file = assert(open(name))\n"
    "  return file:lines(...), nil, nil, file\n" /* the loop closes it */
    "end\n"
    "io.popen, io.tmpfile, os.execute = nil, nil, nil\n"
    "package.loadlib, package.cpath = nil, ''\n"
    "local function search(name)\n"
    "  local tried = ''\n"
    "  for template in package.path:gmatch('[^;]+') do\n"
    "    local path = template:gsub('%?', (name:gsub('%.', '/')))\n"
    "    local chunk, why = loadfile(path)\n"
    "    if chunk then return chunk, path end\n"
    "    tried = tried .. '\\n\\t' .. why\n"
    "  end\n"
    "  return tried\n"
    "end\n"
    "package.path = './?.lua;/lib/?.lua'\n"
    "package.searchers = {package.searchers[1], search}\n";

/* --- os */

static int os_remove(lua_State* lua) {
  const char* path = luaL_checkstring(lua, 1);
  int result = reprise_unlink(guest_of(lua), path);
  if (result == -EISDIR || result == -EPERM) result = reprise_rmdir(guest_of(lua), path);
  return result_of(lua, result, path);
}

static int os_rename(lua_State* lua) {
  const char* from = luaL_checkstring(lua, 1);
  return result_of(lua, reprise_rename(guest_of(lua), from, luaL_checkstring(lua, 2)), from);
}

/* A name of a file that is made with it, so that nobody else gets it. */
static int os_tmpname(lua_State* lua) {
  char path[32];
  int fd = -EEXIST;
  reprise_mkdir(guest_of(lua), "/tmp", 01777); /* it may be there */
  for (int n = 0; n < 1000000 && fd == -EEXIST; ++n) {
    snprintf(path, sizeof path, "/tmp/lua_%06d", n);
    fd = reprise_open(guest_of(lua), path, O_CREAT | O_EXCL | O_RDWR, 0600);
  }
  if (fd < 0) return luaL_error(lua, "%s", reprise_last_error());
  reprise_close(guest_of(lua), fd);
  lua_pushstring(lua, path);
  return 1;
}

/* --- code */

/* Pushes a function, or nil and what is wrong. */
static int load_file(lua_State* lua) {
  const char* path = luaL_checkstring(lua, 1);
  luaL_Buffer text;
  int64_t size = reprise_read_file(guest_of(lua), path, NULL, 0);
  if (size < 0) return result_of(lua, (int)size, path);
  char* room = luaL_buffinitsize(lua, &text, (size_t)size);
  int64_t length = reprise_read_file(guest_of(lua), path, room, (size_t)size);
  if (length < 0) return result_of(lua, (int)length, path);
  luaL_pushresultsize(&text, (size_t)(length < size ? length : size));
  const char* name = lua_pushfstring(lua, "@%s", path);
  const char* code = lua_tolstring(lua, -2, NULL);
  if (luaL_loadbufferx(lua, code, lua_rawlen(lua, -2), name, luaL_optstring(lua, 2, "t")) == LUA_OK) return 1;
  luaL_pushfail(lua);
  lua_insert(lua, -2);
  return 2;
}

static int do_file(lua_State* lua) {
  int results = load_file(lua);
  if (results != 1) return luaL_error(lua, "%s", lua_tostring(lua, 1 - results));
  int below = lua_gettop(lua) - 1;
  lua_call(lua, 0, LUA_MULTRET);
  return lua_gettop(lua) - below;
}

/* --- files */

static int add_name(void* context, const char* name, uint64_t inode, int type) {
  lua_State* lua = context;
  (void)inode, (void)type;
  lua_pushstring(lua, name);
  lua_rawseti(lua, -2, (lua_Integer)lua_rawlen(lua, -2) + 1);
  return 0;
}

static int files_list(lua_State* lua) {
  const char* path = luaL_checkstring(lua, 1);
  lua_newtable(lua);
  int result = reprise_list(guest_of(lua), path, add_name, lua);
  return result == 0 ? 1 : result_of(lua, result, path);
}

static int files_mkdir(lua_State* lua) {
  const char* path = luaL_checkstring(lua, 1);
  return result_of(lua, reprise_mkdir(guest_of(lua), path, 0777), path);
}

void open_libraries_on(lua_State* lua, reprise_guest* guest) {
  static const luaL_Reg io[] = {{"open", open_file}, {NULL, NULL}};
  static const luaL_Reg os[] = {
      {"remove", os_remove}, {"rename", os_rename}, {"tmpname", os_tmpname}, {NULL, NULL}};
  static const luaL_Reg base[] = {{"loadfile", load_file}, {"dofile", do_file}, {NULL, NULL}};
  static const luaL_Reg files[] = {{"list", files_list}, {"mkdir", files_mkdir}, {NULL, NULL}};
  *(reprise_guest**)lua_getextraspace(lua) = guest;
  luaL_openlibs(lua);
  lua_getglobal(lua, "io");
  luaL_setfuncs(lua, io, 0);
  lua_getglobal(lua, "os");
  luaL_setfuncs(lua, os, 0);
  lua_pushglobaltable(lua);
  luaL_setfuncs(lua, base, 0);
  luaL_newlib(lua, files);
  lua_setglobal(lua, "files");
  lua_settop(lua, 0);
  if (luaL_dostring(lua, kPrelude) != LUA_OK) abort(); /* it is a constant */
}
