/* A host of somebody else's: a store on disk that is closed and opened again. */
#include <reprise.h>
#include <string.h>

static int complain(const char* what) {
  fprintf(stderr, "%s: %s\n", what, reprise_last_error());
  return 1;
}

int main(int argc, char** argv) {
  char text[8] = "";
  int i;
  if (argc != 2) return 2;
  for (i = 0; i < 2; ++i) {
    reprise_instance* instance;
    reprise_guest* guest;
    if (reprise_instance_open(argv[1], NULL, &instance) != 0) return complain("open");
    if (reprise_guest_attach(instance, NULL, &guest) != 0) return complain("attach");
    if (i == 0 && reprise_write_file(guest, "/f", "kept", 4, 0644) != 0) return complain("write");
    if (i == 1 && reprise_read_file(guest, "/f", text, sizeof text - 1) != 4) return complain("read");
    reprise_guest_detach(guest);
    if (reprise_instance_close(instance) != 0) return complain("close");
  }
  printf("%s: %s\n", reprise_version(), text);
  return strcmp(text, "kept") != 0;
}
