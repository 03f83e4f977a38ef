// An ordinary server by libc's calls. Linked statically it cannot be preloaded.
#include "serving.h"

int main(int count, char **values) {
  static char bytes[65536];
  long connections;
  const int listener = listener_of(count, values, &connections);
  while (connections-- > 0) {
    struct sockaddr_storage from;
    socklen_t length = sizeof(from);
    const int fd = accept(listener, (struct sockaddr *)&from, &length);
    if (fd < 0) fail("accept");
    report(fd, &from);
    for (ssize_t n; (n = recv(fd, bytes, sizeof(bytes), 0)) > 0;)
      for (ssize_t at = 0, sent = 0; at < n && sent >= 0; at += sent) sent = send(fd, bytes + at, (size_t)(n - at), MSG_NOSIGNAL);
    close(fd);
  }
  return 0;
}
