// What the relay's tests share: a segment file in force with the real relay beside it, and the kernel's part played by hand. A
// test's program connects to the relay's port by itself and says so in the words of the kernel's redirection.
#pragma once

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "contract/kernel.h"
#include "contract/relay.h"
#include "contract/row.h"
#include "segment/segment.h"

namespace mishap::relay {

constexpr u64 kMillisecond = 1000000, kSecond = 1000 * kMillisecond;
constexpr u64 kLate = 250 * kMillisecond;  // what a busy machine may add

inline u64 now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<u64>(now.tv_sec) * kSecond + static_cast<u64>(now.tv_nsec);
}

inline bool ready(int fd, short events, int timeout_ms = 5000) {
  pollfd look = {fd, events, 0};
  return poll(&look, 1, timeout_ms) > 0;
}

inline bool soon(const std::function<bool()>& holds) {
  for (u64 end = now_ns() + 5 * kSecond; now_ns() < end; usleep(2000))
    if (holds()) return true;
  return holds();
}

inline Row row_of(std::initializer_list<Fault> faults) {
  Row row = {};
  row.seed = 7;
  for (Fault fault : faults) row.faults |= bit(fault);
  return row;
}

struct Descriptor {
  explicit Descriptor(int fd = -1) : fd(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd(other.fd) { other.fd = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd, other.fd);
    return *this;
  }
  ~Descriptor() { reset(); }
  void reset() {
    if (fd >= 0) close(fd);
    fd = -1;
  }
  operator int() const { return fd; }
  int fd;
};

inline sockaddr_storage loopback(int family, u16 port = 0) {
  sockaddr_storage storage = {};
  if (family == AF_INET) *reinterpret_cast<sockaddr_in*>(&storage) = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {}};
  else *reinterpret_cast<sockaddr_in6*>(&storage) = {AF_INET6, htons(port), 0, in6addr_loopback, 0};
  return storage;
}
inline const sockaddr* plain(const sockaddr_storage& address) { return reinterpret_cast<const sockaddr*>(&address); }
inline u16 port_of(int fd) {
  sockaddr_in address = {};
  socklen_t length = sizeof(address);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

// The server that programs want to talk to.
inline Descriptor listen_tcp(int family = AF_INET) {
  Descriptor fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_storage address = loopback(family);
  REQUIRE(bind(fd, plain(address), sizeof(sockaddr_in6)) == 0);
  REQUIRE(listen(fd, 1024) == 0);
  return fd;
}

class Run {
 public:
  explicit Run(const Row* policy = nullptr, u32 flags = kHeaderKernel) {
    char folder[] = "/dev/shm/mishap-test-XXXXXX";
    REQUIRE(mkdtemp(folder));
    folder_ = folder;
    path_ = folder_ + "/segment";
    const Capacities capacities = {2, 64, 64, 1024, 1024, 4096, 48, 1};
    const u64 size = segment_size(capacities);
    const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    u8* base = static_cast<u8*>(map_of(fd, size));
    format(base, size, capacities);
    REQUIRE(check(base, size, &segment) == AttachError::None);
    segment.header->owner_lock[0] = 1;  // as if a living thread held it
    segment.header->lease_expiry_ns = now_ns() + 600 * kSecond;
    segment.header->flags = flags;
    segment.header->default_policy = policy ? 0 : -1;
    if (policy) REQUIRE(publish_row(segment, 0, *policy, nullptr, 0));
    store(&segment.header->state, static_cast<u32>(State::Active));
    start();
  }
  ~Run() {
    close_input();
    kill_relay();
    unlink(path_.c_str());
    rmdir(folder_.c_str());
    detach(&segment);
    munmap(control, sizeof(RelayControl));
    munmap(rows, sizeof(RelayRow) * MISHAP_KERNEL_SOCKETS);
    munmap(sockets, sizeof(KernelSocket) * MISHAP_KERNEL_SOCKETS);
    munmap(pool, sizeof(RelayPool));
  }
  Run(const Run&) = delete;

  // A policy that holds from now on.
  void publish(const Row& row) {
    store(&segment.header->default_policy, 0);
    REQUIRE(publish_row(segment, 0, row, nullptr, 0));
    add(&segment.header->generation, 1u);
  }

  // A program's socket whose connect to `peer_port` was handed to the relay, and is pending.
  Descriptor connect_to(u16 peer_port, int family = AF_INET) {
    Descriptor fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const sockaddr_storage to = loopback(family, load(&control->port));
    const bool pending = connect(fd, plain(to), sizeof(sockaddr_in6)) < 0 && errno == EINPROGRESS;
    REQUIRE(pending);
    told = connect_of(fd, peer_port, family);
    tell();
    return fd;
  }
  // A program's datagram socket, connected to the relay's port for `peer_port`.
  Descriptor talk_to(u16 peer_port, int family = AF_INET) {
    Descriptor fd(socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    told = connect_of(fd, peer_port, family);
    told.protocol = static_cast<u8>(Protocol::Udp);
    told.row = MISHAP_KERNEL_ROW(told.cookie);
    store(&sockets[told.row].owner.cookie, told.cookie);
    REQUIRE(send_raw(told, sizeof(told)));
    const sockaddr_storage to = loopback(family, pool_port(told.peer, peer_port, family));
    REQUIRE(connect(fd, plain(to), sizeof(sockaddr_in6)) == 0);
    return fd;
  }
  // Gives a peer of the pool to a destination: its port.
  u16 pool_port(const u8 address[16], u16 port, int family) {
    const u32 at = add(&pool->used[family == AF_INET6], 1u);
    REQUIRE(soon([&] { return load(&pool->ready[family == AF_INET6]) > at; }));
    RelayPeer* peer = &pool->peers[(family == AF_INET6 ? MISHAP_RELAY_PEERS : 0) + at];
    memcpy(peer->address, address, 16);
    store(&peer->port, port);
    return load(&peer->pool_port);
  }
  RelayConnect connect_of(int fd, u16 peer_port, int family) {
    RelayConnect connect = {};
    socklen_t length = sizeof(connect.cookie);
    REQUIRE(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &connect.cookie, &length) == 0);
    connect.pid = connect.tid = getpid();
    connect.process = process_key(connect.pid, 1);
    connect.row = ++row_;
    connect.family = static_cast<u8>(family);
    connect.source_port = port_of(fd);
    connect.peer_port = peer_port;
    u8 own[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
    if (family == AF_INET6) memcpy(own, &in6addr_loopback, 16);
    memcpy(connect.source, own, 16);
    memcpy(connect.peer, own, 16);
    return connect;
  }
  void tell() {
    rows[told.row].cookie = sockets[told.row].owner.cookie = told.cookie;
    REQUIRE(send_raw(told, sizeof(told)));
  }
  bool send_raw(const RelayConnect& connect, size_t size) { return send(connects_, &connect, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size); }

  u64 applied(Fault fault, Direction direction) const {
    return load(&segment.stats[0].applied[static_cast<u32>(fault) * kDirections + static_cast<u32>(direction)]);
  }
  u64 unsupported() const { return load(&segment.header->fallbacks[static_cast<u32>(Fallback::Unsupported)]); }
  const Histogram* times(Fault fault, Direction direction) const { return histogram_of(segment, 0, fault, direction); }
  Flow* flow() const {
    Flow* flow = find_flow(segment, told.cookie);
    REQUIRE(flow);
    return flow;
  }
  int descriptors() const {
    const std::string command = "ls /proc/" + std::to_string(pid_) + "/fd | wc -l";
    FILE* pipe = popen(command.c_str(), "r");
    int count = -1;
    REQUIRE(fscanf(pipe, "%d", &count) == 1);
    pclose(pipe);
    return count;
  }
  void signal(int number) const { kill(pid_, number); }
  void kill_relay() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  void close_input() { input_.reset(); }
  int ended() {
    close_input();
    int status = -1;
    REQUIRE(waitpid(pid_, &status, 0) == pid_);
    pid_ = -1;
    return status;
  }

  Segment segment;
  RelayControl* control = nullptr;
  RelayRow* rows = nullptr;
  KernelSocket* sockets = nullptr;
  RelayPool* pool = nullptr;
  RelayConnect told = {};  // the last connect

 private:
  static void* map_of(int fd, u64 size) {
    REQUIRE(ftruncate(fd, static_cast<off_t>(size)) == 0);
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    REQUIRE(memory != MAP_FAILED);
    return memory;
  }
  void start() {
    int in[2], out[2], pair[2], maps[4];
    REQUIRE(pipe2(in, O_CLOEXEC) == 0);
    REQUIRE(pipe2(out, O_CLOEXEC) == 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    for (int& map : maps) map = memfd_create("map", MFD_CLOEXEC);
    control = static_cast<RelayControl*>(map_of(maps[0], sizeof(RelayControl)));
    rows = static_cast<RelayRow*>(map_of(maps[1], sizeof(RelayRow) * MISHAP_KERNEL_SOCKETS));
    sockets = static_cast<KernelSocket*>(map_of(maps[2], sizeof(KernelSocket) * MISHAP_KERNEL_SOCKETS));
    pool = static_cast<RelayPool*>(map_of(maps[3], sizeof(RelayPool)));
    pid_ = fork();
    if (pid_ == 0) {
      int fds[] = {in[0], out[1], 2, maps[0], maps[1], pair[1], maps[2], maps[3]};
      for (int& fd : fds) fd = fcntl(fd, F_DUPFD, 100);
      for (int i = 0; i < 8; i++) dup2(fds[i], i);
      execl(MISHAP_RELAY, "mishap-relay", path_.c_str(), nullptr);
      _exit(127);
    }
    for (int fd : {in[0], out[1], pair[1], maps[0], maps[1], maps[2], maps[3]}) close(fd);
    input_ = Descriptor(in[1]);
    connects_ = Descriptor(pair[0]);
    Descriptor output(out[0]);
    char text[256] = {};
    REQUIRE(ready(output, POLLIN, 10000));
    REQUIRE(::read(output, text, sizeof(text) - 1) > 0);
    REQUIRE(std::string(text) == "ready\n");
  }

  std::string folder_, path_;
  pid_t pid_ = -1;
  u32 row_ = 0;
  Descriptor input_, connects_;
};

inline int error_of(int fd) {
  int error = 0;
  socklen_t length = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  return error;
}

// A program's connection through the relay and the server's end of it.
struct Pair {
  Pair(Run& run, int family = AF_INET) : listener(listen_tcp(family)), began_ns(now_ns()), program(run.connect_to(port_of(listener), family)) {
    REQUIRE(ready(program, POLLOUT));
    connected_ns = now_ns();
    REQUIRE(error_of(program) == 0);
    REQUIRE(ready(listener, POLLIN));
    server = Descriptor(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    REQUIRE(server >= 0);
  }
  Descriptor listener;
  u64 began_ns, connected_ns;
  Descriptor program, server;
};

struct Arrival {
  std::string bytes;  // or what receiving failed with
  u64 at_ns;
};
inline Arrival receive(int fd, int timeout_ms = 5000) {
  char bytes[65536];
  if (!ready(fd, POLLIN, timeout_ms)) return {"nothing came", 0};
  const ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
  const u64 at = now_ns();
  if (n < 0) return {errno == ECONNRESET ? "reset" : strerror(errno), at};
  return {std::string(bytes, static_cast<size_t>(n)), at};
}
// As many bytes as that, or those until the end.
inline std::string receive_all(int fd, size_t size, int timeout_ms = 5000) {
  std::string all;
  while (all.size() < size) {
    Arrival part = receive(fd, timeout_ms);
    if (part.at_ns == 0 || part.bytes.empty()) break;
    all += part.bytes;
  }
  return all;
}
inline void say(int fd, const std::string& text) { REQUIRE(send(fd, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size())); }

}  // namespace mishap::relay
