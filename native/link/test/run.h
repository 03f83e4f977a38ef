// What the courier's tests share: pairs of sockets, and a segment file in force with the real courier beside it, to which a
// test gives parcels as a program does.
#pragma once

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "link/parcel.h"
#include "segment/segment.h"

namespace mishap::link {

constexpr u64 kMillisecond = 1000000, kSecond = 1000 * kMillisecond;
constexpr u64 kDelay = 60 * kMillisecond;
constexpr u64 kLate = kSecond;  // what a busy machine may add
constexpr u64 kEarly = 50000;   // how much less is still on time: a send begins a little ahead

inline u64 now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<u64>(now.tv_sec) * kSecond + static_cast<u64>(now.tv_nsec);
}

inline bool readable(int fd, int timeout_ms) {
  pollfd look = {fd, POLLIN, 0};
  return poll(&look, 1, timeout_ms) > 0;
}

// Two connected sockets: what `near` sends, `far` receives.
struct Pair {
  int near = -1, far = -1;
  ~Pair() {
    close_near();
    if (far >= 0) close(far);
  }
  void close_near() {
    if (near >= 0) close(near);
    near = -1;
  }
  static sockaddr_in loopback(int fd) {
    sockaddr_in address = {};
    socklen_t length = sizeof(address);
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
    return address;
  }
};

inline int listen_tcp(int receive_buffer = 0) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (receive_buffer) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
  REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  REQUIRE(listen(fd, 8) == 0);
  return fd;
}

inline void connect_tcp(Pair* pair, int receive_buffer = 0) {
  int listener = listen_tcp(receive_buffer);
  sockaddr_in address = Pair::loopback(listener);
  pair->near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(connect(pair->near, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  pair->far = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  close(listener);
  REQUIRE(pair->far >= 0);
}

inline void connect_udp(Pair* pair) {
  sockaddr_in any = {};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  pair->near = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  pair->far = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  REQUIRE(bind(pair->far, reinterpret_cast<sockaddr*>(&any), sizeof(any)) == 0);
  sockaddr_in address = Pair::loopback(pair->far);
  REQUIRE(connect(pair->near, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
}

// A segment file in force and its courier.
class Run {
 public:
  explicit Run(const char* queue_bytes = nullptr) {
    char folder[] = "/dev/shm/mishap-test-XXXXXX";
    REQUIRE(mkdtemp(folder));
    folder_ = folder;
    path_ = folder_ + "/segment";
    const Capacities capacities = {2, 64, 64, 64, 256, 64, 48, 1};
    u64 size = segment_size(capacities);
    int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    REQUIRE(ftruncate(fd, static_cast<off_t>(size)) == 0);
    u8* base = static_cast<u8*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    close(fd);
    REQUIRE(base != MAP_FAILED);
    format(base, size, capacities);
    REQUIRE(check(base, size, &segment) == AttachError::None);
    segment.header->owner_lock[0] = 1;  // as if a living thread held it
    segment.header->lease_expiry_ns = now_ns() + 600 * kSecond;
    store(&segment.header->state, static_cast<u32>(State::Active));
    start(queue_bytes);
  }
  ~Run() {
    close_input();
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    if (output_ >= 0) close(output_);
    unlink((path_ + ".courier").c_str());
    unlink(path_.c_str());
    rmdir(folder_.c_str());
    detach(&segment);
  }
  Run(const Run&) = delete;

  // A connection such as a program has.
  int connect_sender() {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    strcpy(address.sun_path, (path_ + ".courier").c_str());
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    REQUIRE(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    return fd;
  }

  Flow* flow_of(int fd) {
    u64 cookie = 0;
    socklen_t length = sizeof(cookie);
    REQUIRE(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) == 0);
    FlowOpening opening = {};
    opening.cookie = cookie;
    opening.protocol = Protocol::Tcp;
    opening.bound_policy = -1;
    bool fresh;
    Flow* flow = open_flow(segment, opening, &fresh);
    REQUIRE(flow);
    return flow;
  }

  Parcel parcel_for(int fd, bool stream, u64 due_ns) {
    Flow* flow = flow_of(fd);
    Parcel parcel = {};
    parcel.magic = kParcelMagic;
    parcel.stream = stream;
    parcel.cookie = flow->cookie;
    parcel.flow = static_cast<u32>(flow - segment.flows);
    parcel.policy = -1;
    parcel.sent_ns = now_ns();
    parcel.due_ns = due_ns;
    return parcel;
  }

  // As a program sends: the line is longer from before the parcel goes. `fds` all go with it.
  bool give(int sender, const Parcel& parcel, const void* bytes, size_t length, const std::vector<int>& fds, int flags = 0) {
    if (parcel.flow < segment.count.flows) add(&segment.flows[parcel.flow].line_bytes, u64{length});
    char control[CMSG_SPACE(8 * sizeof(int))] = {};
    iovec parts[2] = {{const_cast<Parcel*>(&parcel), sizeof(parcel)}, {const_cast<void*>(bytes), length}};
    msghdr message = {};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    if (!fds.empty()) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      memcpy(CMSG_DATA(c), fds.data(), fds.size() * sizeof(int));
    }
    return sendmsg(sender, &message, MSG_NOSIGNAL | flags) >= 0;
  }
  bool give(int sender, const Parcel& parcel, const std::string& text, int fd) {
    return give(sender, parcel, text.data(), text.size(), {fd});
  }

  u64 line_bytes(int fd) { return load(&flow_of(fd)->line_bytes); }
  pid_t pid() const { return pid_; }
  bool alive() { return waitpid(pid_, nullptr, WNOHANG) == 0; }
  int descriptors() {
    std::string command = "ls /proc/" + std::to_string(pid_) + "/fd | wc -l";
    FILE* pipe = popen(command.c_str(), "r");
    int count = -1;
    REQUIRE(fscanf(pipe, "%d", &count) == 1);
    pclose(pipe);
    return count;
  }
  // The run ends: no more input. The courier's exit status, once it left.
  void close_input() {
    if (input_ >= 0) close(input_);
    input_ = -1;
  }
  int ended() {
    close_input();
    int status = -1;
    REQUIRE(waitpid(pid_, &status, 0) == pid_);
    pid_ = -1;
    return status;
  }
  // What it says next, at most so long from now.
  std::string said(int timeout_ms) {
    char text[256] = {};
    if (!readable(output_, timeout_ms)) return "";
    ssize_t n = read(output_, text, sizeof(text) - 1);
    return n > 0 ? std::string(text, static_cast<size_t>(n)) : "";
  }
  bool socket_exists() { return access((path_ + ".courier").c_str(), F_OK) == 0; }

  Segment segment;

 private:
  void start(const char* queue_bytes) {
    int in[2], out[2];
    REQUIRE(pipe2(in, O_CLOEXEC) == 0);
    REQUIRE(pipe2(out, O_CLOEXEC) == 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], 0);
      dup2(out[1], 1);
      execl(MISHAP_COURIER, "mishap-courier", path_.c_str(), queue_bytes, nullptr);
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    input_ = in[1];
    output_ = out[0];
    REQUIRE(said(10000) == "ready\n");
  }

  std::string folder_, path_;
  pid_t pid_ = -1;
  int input_ = -1, output_ = -1;
};

struct Arrival {
  std::string bytes;
  u64 at_ns;
};
inline Arrival receive(int fd, int timeout_ms = 5000) {
  char bytes[65536];
  if (!readable(fd, timeout_ms)) return {"nothing came", 0};
  ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
  u64 at = now_ns();
  if (n < 0) return {strerror(errno), at};
  return {std::string(bytes, static_cast<size_t>(n)), at};
}

inline void check_on_time(u64 at_ns, u64 due_ns) {
  CHECK(at_ns + kEarly >= due_ns);
  CHECK(at_ns < due_ns + kLate);
}

inline bool soon(const std::function<bool()>& holds) {
  for (u64 end = now_ns() + 5 * kSecond; now_ns() < end; usleep(2000))
    if (holds()) return true;
  return holds();
}

}  // namespace mishap::link
