/* A host of many Lua interpreters in one process. Their io and os go to instances.
 *
 *   lua_host STORE SCRIPT…                       each script in an interpreter, a thread and a fork of its
 * own, all at once; joined if it did well, else discarded lua_host --listen ENDPOINT STORE SCRIPT…     the
 * same, and goes on serving followers until its standard input ends lua_host --follow ENDPOINT MARK SCRIPT…
 * in memory, in step with a host that listens, for reading: runs each when the mark was passed
 *
 * Scripts are the host's files; everything that they open is the instance's. When all scripts are joined the
 * mark "done" is set. Exit status 0 if all did well.
 */
#include <lauxlib.h>
#include <lualib.h>
#include <pthread.h>
#include <string.h>

#include "lua_files.h"

enum { kScriptsMax = 64 };

typedef struct Job {
  const char* script;
  char branch[24];
  reprise_instance* instance;
  int well;
  pthread_t thread;
} Job;

static int complain(const char* what) {
  fprintf(stderr, "lua_host: %s: %s\n", what, reprise_last_error());
  return 0;
}

/* 1 if the script did well in an interpreter of its own. */
static int run_script(reprise_instance* instance, const char* script) {
  reprise_guest* guest;
  reprise_guest_options options = REPRISE_GUEST_OPTIONS_INIT;
  options.label = script;
  if (reprise_guest_attach(instance, &options, &guest) != 0) return complain(script);
  lua_State* lua = luaL_newstate();
  int well = 0;
  if (lua != NULL) {
    open_libraries_on(lua, guest);
    well = luaL_loadfile(lua, script) == LUA_OK && lua_pcall(lua, 0, 0, 0) == LUA_OK;
    if (!well) fprintf(stderr, "lua_host: %s\n", lua_tostring(lua, -1));
    lua_close(lua);
  }
  reprise_guest_detach(guest);
  return well;
}

static void* run_job(void* job_of_thread) {
  Job* job = job_of_thread;
  job->well = run_script(job->instance, job->script);
  if (reprise_instance_close(job->instance) != 0) job->well = complain(job->script);
  return NULL;
}

static void say_conflict(void* script, const reprise_conflict* conflict) {
  fprintf(stderr, "lua_host: %s: %s: %s\n", (const char*)script, conflict->path, conflict->what);
}

/* Joins what did well; what did not, or meets what another one did, leaves nothing behind. */
static int finish(reprise_instance* parent, Job* job) {
  pthread_join(job->thread, NULL);
  if (job->well) {
    int64_t conflicts = reprise_join(parent, job->branch, say_conflict, (void*)job->script);
    if (conflicts == 0) return 1;
    if (conflicts < 0) complain(job->script);
  }
  if (reprise_discard(parent, job->branch) != 0) complain(job->script);
  return 0;
}

static int run_all(reprise_instance* parent, char** scripts, int count) {
  static Job jobs[kScriptsMax];
  int well = 1, begun = 0;
  for (; begun < count; ++begun) {
    Job* job = &jobs[begun];
    job->script = scripts[begun];
    snprintf(job->branch, sizeof job->branch, "script-%d", begun);
    if (reprise_fork(parent, job->branch, &job->instance) != 0) {
      well = complain(job->script);
      break;
    }
    if (pthread_create(&job->thread, NULL, run_job, job) != 0) {
      reprise_instance_close(job->instance);
      reprise_discard(parent, job->branch);
      well = 0;
      break;
    }
  }
  for (int i = 0; i < begun; ++i) well &= finish(parent, &jobs[i]);
  if (well && reprise_mark(parent, "done") != 0) well = complain("mark");
  return well;
}

static int lead(const char* endpoint, const char* store, char** scripts, int count) {
  reprise_instance* parent;
  reprise_instance_options options = REPRISE_INSTANCE_OPTIONS_INIT;
  options.listen = endpoint;
  if (reprise_instance_open(store, &options, &parent) != 0) return complain(store);
  int well = run_all(parent, scripts, count);
  while (endpoint != NULL && getchar() != EOF) continue;
  return reprise_instance_close(parent) == 0 ? well : complain(store);
}

static int follow(const char* endpoint, const char* mark, char** scripts, int count) {
  reprise_instance* instance;
  reprise_instance_options options = REPRISE_INSTANCE_OPTIONS_INIT;
  options.follow = endpoint;
  if (reprise_instance_open(NULL, &options, &instance) != 0) return complain(endpoint);
  int well = reprise_wait_for_mark(instance, mark, 10000) == 0 || complain(mark);
  for (int i = 0; i < count && well; ++i) well = run_script(instance, scripts[i]);
  return reprise_instance_close(instance) == 0 ? well : complain(endpoint);
}

int main(int argc, char** argv) {
  int listens = argc > 3 && strcmp(argv[1], "--listen") == 0;
  int follows = argc > 3 && strcmp(argv[1], "--follow") == 0;
  int first = follows || listens ? 4 : 2;
  if (argc < first || argc - first > kScriptsMax) {
    fprintf(stderr,
            "usage: lua_host [--listen ENDPOINT] STORE SCRIPT... | --follow ENDPOINT MARK SCRIPT...\n");
    return 2;
  }
  int well = follows ? follow(argv[2], argv[3], argv + first, argc - first)
                     : lead(listens ? argv[2] : NULL, argv[first - 1], argv + first, argc - first);
  return well ? 0 : 1;
}
