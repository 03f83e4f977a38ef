// An ordinary client by libc's calls. Linked statically it cannot be preloaded; as a setuid copy it must not be.
#include "libc_way.h"

int main(int count, char **values) {
  const struct task task = task_of(count, values);
  struct way libc = LIBC_WAY, *ways[] = {&libc};
  exchange(ways, 1, &task);
  report(&libc);
  return 0;
}
