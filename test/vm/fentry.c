// Loads fentry.bpf.c, compiled, from the file it is given, sends a byte over a TCP connection of its own, and says how often
// the program saw that: 0 and "1 call seen" where fentry works.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static int send_a_byte(void) {
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof here;
  const int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
  return bind(listener, (struct sockaddr *)&here, length) == 0 && listen(listener, 1) == 0 &&
         getsockname(listener, (struct sockaddr *)&here, &length) == 0 && connect(client, (struct sockaddr *)&here, length) == 0 &&
         send(client, "x", 1, 0) == 1;
}

static int fail(const char *what) {
  printf("%s: %s\n", what, strerror(errno));
  return 1;
}

int main(int count, char **values) {
  libbpf_set_print(NULL);
  struct bpf_object *object = count > 1 ? bpf_object__open_file(values[1], NULL) : NULL;
  if (!object || bpf_object__load(object)) return fail("it does not load");
  struct bpf_program *program = bpf_object__find_program_by_name(object, "mishap_calls");
  if (!program || !bpf_program__attach(program)) return fail("it does not attach");
  const int zero = 0;
  uint64_t calls = 0;
  if (!send_a_byte()) return fail("no connection to itself");
  if (bpf_map__lookup_elem(bpf_object__find_map_by_name(object, ".bss"), &zero, sizeof zero, &calls, sizeof calls, 0)) return fail("its count");
  printf("%llu calls seen\n", (unsigned long long)calls);
  return calls > 0 ? 0 : 1;
}
