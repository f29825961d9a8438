/* The smallest C host: an instance in memory, a guest, a file; and what an error looks like.
 *
 *   cc minimal.c -lreprise && ./a.out
 */
#include <stdio.h>

#include "reprise.h"

int main(void) {
  reprise_instance* instance;
  reprise_guest* guest;
  if (reprise_instance_open(NULL, NULL, &instance) != 0 ||
      reprise_guest_attach(instance, NULL, &guest) != 0) {
    fprintf(stderr, "%s\n", reprise_last_error());
    return 1;
  }

  FILE* file = reprise_fopen(guest, "/hello", "w");
  if (file == NULL || fprintf(file, "hello from %s\n", reprise_version()) < 0 || fclose(file) != 0) return 1;

  char text[64] = "";
  int64_t length = reprise_read_file(guest, "/hello", text, sizeof text - 1);
  printf("%lld bytes: %s", (long long)length, text);

  if (reprise_open(guest, "/no/such/file", 0, 0) < 0) printf("as it should be: %s\n", reprise_last_error());

  reprise_guest_detach(guest);
  return reprise_instance_close(instance) == 0 ? 0 : 1;
}
