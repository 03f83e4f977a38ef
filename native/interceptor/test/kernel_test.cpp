// The reader of the kernel's table, served as the loader serves it: a file in place of the kernel's map, the same hello. What
// is wrong with it, or changes while it is read, is never taken for true.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "interceptor/interceptor.h"

using namespace mishap;

namespace {

constexpr u32 kRows = 1024;
constexpr u64 kBytes = u64{kRows} * sizeof(KernelSocket);
constexpr KernelHello kSound = {kMagic, kRows, sizeof(KernelSocket)};

// A table in memory that the reader maps too.
struct Rows {
  explicit Rows(u64 bytes = kBytes) : fd(memfd_create("rows", 0)) {
    REQUIRE(ftruncate(fd, static_cast<off_t>(bytes)) == 0);
    at = static_cast<KernelSocket*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    REQUIRE(at != MAP_FAILED);
    size = bytes;
  }
  ~Rows() {
    munmap(at, size);
    close(fd);
  }
  KernelSocket* row(u64 cookie, u32 step = 0) const { return &at[(MISHAP_KERNEL_ROW(cookie) + step) % kRows]; }

  int fd;
  KernelSocket* at;
  u64 size;
};

int listen_at(const std::string& path) {
  sockaddr_un at = {};
  at.sun_family = AF_UNIX;
  path.copy(at.sun_path, sizeof(at.sun_path) - 1);
  const int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof(at)) == 0);
  REQUIRE(listen(listener, 4) == 0);
  return listener;
}

void answer(int listener, const void* bytes, size_t size, const std::vector<int>& descriptors) {
  const int connection = accept(listener, nullptr, nullptr);
  iovec part = {const_cast<void*>(bytes), size};
  alignas(cmsghdr) u8 control[CMSG_SPACE(4 * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
    memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
  }
  sendmsg(connection, &message, 0);
  close(connection);
}

u32 open_descriptors() {
  u32 many = 0;
  for (int fd = 0; fd < 256; fd++) many += fcntl(fd, F_GETFD) >= 0;
  return many;
}

// Whether the reader takes what it is served, with these descriptors; it keeps none of them.
bool met(const void* bytes, size_t size, const std::vector<int>& descriptors) {
  const std::string path = "/tmp/mishap-kernel-test-" + std::to_string(getpid());
  const int listener = listen_at(path);
  const u32 before = open_descriptors();
  std::thread server(answer, listener, bytes, size, descriptors);
  const bool taken = meet_kernel(path.c_str());
  server.join();
  CHECK(open_descriptors() == before);
  close(listener);
  unlink(path.c_str());
  return taken;
}
bool met(const KernelHello& hello, int fd) { return met(&hello, sizeof(hello), {fd}); }

void fill(KernelSocket* row, u64 cookie, i32 tid) {
  row->owner.process = process_key(tid, 5);
  row->owner.pid = row->owner.tid = tid;
  row->owner.cookie = cookie;
}

}  // namespace

TEST_CASE("what is served by nobody, or is not the kernel's table, is not taken") {
  resolve_originals();
  Rows rows;
  CHECK_FALSE(meet_kernel("/tmp/mishap-kernel-test-nobody"));
  CHECK_FALSE(meet_kernel(std::string(200, 'x').c_str()));
  const auto with = [](auto change) {
    KernelHello hello = kSound;
    change(&hello);
    return hello;
  };
  CHECK_FALSE(met(with([](KernelHello* h) { h->magic++; }), rows.fd));
  CHECK_FALSE(met(with([](KernelHello* h) { h->row_bytes += 8; }), rows.fd));
  for (u32 many : {0u, 1u, 16u, 1000u, 2 * kRows, 2u * MISHAP_KERNEL_SOCKETS, 0x80000000u})
    CHECK_FALSE(met(with([&](KernelHello* h) { h->rows = many; }), rows.fd));
  CHECK_FALSE(met(&kSound, sizeof(kSound) - 1, {rows.fd}));
  CHECK_FALSE(met(&kSound, sizeof(kSound), {}));
  CHECK_FALSE(met(&kSound, sizeof(kSound), {rows.fd, rows.fd}));
  Rows small(kBytes - 4096);
  CHECK_FALSE(met(kSound, small.fd));
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  CHECK_FALSE(met(kSound, ends[0]));
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("nobody is waited for long who does not answer") {
  resolve_originals();
  const std::string path = "/tmp/mishap-kernel-test-mute-" + std::to_string(getpid());
  const int listener = listen_at(path);
  const u64 start = now_ns();
  CHECK_FALSE(meet_kernel(path.c_str()));
  CHECK(now_ns() - start >= 1'900'000'000);
  CHECK(now_ns() - start < 20'000'000'000);
  close(listener);
  unlink(path.c_str());
}

TEST_CASE("a socket's row is found wherever it lies in its window") {
  resolve_originals();
  Rows rows;
  REQUIRE(met(kSound, rows.fd));
  constexpr u64 cookie = 4711;
  CHECK(kernel_socket(cookie) == nullptr);
  CHECK(kernel_socket(0) == nullptr);
  for (u32 step : {0u, 1u, u32{MISHAP_KERNEL_WINDOW} - 1}) {
    fill(rows.row(cookie, step), cookie, static_cast<i32>(step) + 1);  // those before it are free again
    Owner owner;
    REQUIRE(kernel_owner(cookie, &owner));
    CHECK(owner.tid == static_cast<i32>(step) + 1);
    CHECK(owner.process == process_key(owner.tid, 5));
    rows.row(cookie, step)->owner.cookie = 0;
  }
  fill(rows.row(cookie, MISHAP_KERNEL_WINDOW), cookie, 9);
  CHECK(kernel_socket(cookie) == nullptr);

  u64 last = 1;  // one whose window wraps
  while (MISHAP_KERNEL_ROW(last) % kRows != kRows - 1) last++;
  fill(rows.row(last, 1), last, 3);
  CHECK(kernel_socket(last) != nullptr);
}

TEST_CASE("the newest arrivals come in order, without the one that may be half written") {
  resolve_originals();
  Rows rows;
  REQUIRE(met(kSound, rows.fd));
  KernelSocket* row = rows.row(7);
  KernelArrival seen[kKernelArrivals];
  CHECK(kernel_arrivals(7, seen) == 0);
  fill(row, 7, 1);
  CHECK(kernel_arrivals(7, seen) == 0);
  for (u64 n = 0; n < 20; n++) {
    row->arrivals[n % MISHAP_KERNEL_ARRIVALS] = {100 * (n + 1), 1000 + n};
    row->arrivals_count = n + 1;
    const u32 count = kernel_arrivals(7, seen);
    REQUIRE(count == (n + 1 < kKernelArrivals ? n + 1 : kKernelArrivals));
    CHECK(seen[count - 1].end == 100 * (n + 1));
    for (u32 i = 1; i < count; i++) CHECK(seen[i].end == seen[i - 1].end + 100);
  }
  row->arrivals[2].at_ns = 1;  // time does not run backwards
  CHECK(kernel_arrivals(7, seen) == 0);
}

TEST_CASE("a row that changes hands while it is read is nobody's, and its arrivals are those of one socket") {
  resolve_originals();
  Rows rows;
  constexpr KernelHello kOneWindow = {kMagic, MISHAP_KERNEL_WINDOW, sizeof(KernelSocket)};  // every cookie's is the whole table
  REQUIRE(met(kOneWindow, rows.fd));
  KernelSocket* row = rows.at;
  std::atomic<u64> current{1};
  std::atomic<bool> done{false};
  // One socket after the other has the row; tid, process and arrivals tell them apart.
  std::thread writer([&] {
    for (u64 mine = 1; !done; mine++) {
      current = mine;
      store(&row->owner.cookie, u64{0});
      fence_release();
      store(&row->owner.tid, static_cast<i32>(mine));
      store(&row->owner.process, mine);
      store(&row->arrivals_count, u64{0});
      for (u64 n = 1; n <= 3; n++) {
        store(&row->arrivals[n - 1].end, mine * n);
        store(&row->arrivals[n - 1].at_ns, mine + n);
        store_release(&row->arrivals_count, n);
      }
      store_release(&row->owner.cookie, mine);
      if (mine % 16 == 0) std::this_thread::yield();
    }
  });
  u32 found = 0, wrong = 0;
  for (u32 i = 0; i < 100'000 || (found < 100 && i < 10'000'000); i++) {
    const u64 cookie = current;
    Owner owner;
    KernelArrival seen[kKernelArrivals];
    if (kernel_owner(cookie, &owner)) {
      found++;
      wrong += owner.tid != static_cast<i32>(cookie) || owner.process != cookie;
    }
    const u32 count = kernel_arrivals(cookie, seen);
    for (u32 n = 0; n < count; n++) wrong += seen[n].end != cookie * (n + 1) || seen[n].at_ns != cookie + n + 1;
  }
  done = true;
  writer.join();
  CHECK(found > 0);
  CHECK(wrong == 0);
}
