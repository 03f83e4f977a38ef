// The dead-man's switch; see lease.h. A native thread, because a busy event loop must not let the lease lapse, and
// because the kernel marks a robust lock at the death of the thread that holds it, whatever killed it.
#include "lease.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <climits>
#include <set>

namespace mishap {
namespace {

constexpr u64 kLeaseNs = 2'000'000'000;
constexpr auto kRenewal = std::chrono::milliseconds(250);

static_assert(sizeof(pthread_mutex_t) <= sizeof(Header::owner_lock),
              "the header's owner_lock cannot hold a mutex of this libc");

pthread_mutex_t* owner_lock(Header* header) { return reinterpret_cast<pthread_mutex_t*>(header->owner_lock); }

// The kernel dates arrivals only once some socket of the host has asked for it. Held open from before the program
// starts, this one sees to it that the first packets of the run are dated too.
int open_stamping_socket() {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  int on = 1;
  if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
  return fd;
}

// Waits inside the interceptor sleep on the state's futex; shared, because they are other processes.
void wake_waits(const Segment& segment) {
  syscall(SYS_futex, &segment.header->state, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// False when the state was another; so a retired segment stays retired.
bool change_state(const Segment& segment, State from, State to) {
  if (!swap_if(&segment.header->state, static_cast<u32>(from), static_cast<u32>(to))) return false;
  wake_waits(segment);
  return true;
}

std::mutex all_lock;
std::set<Lease*> all;
std::set<Lease*> suspended;

}  // namespace

u64 monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<u64>(now.tv_sec) * 1'000'000'000 + static_cast<u64>(now.tv_nsec);
}

void initialise_owner_lock(Header* header) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(owner_lock(header), &attributes);
  pthread_mutexattr_destroy(&attributes);
}

Lease::Lease(const Segment& segment, int fd, bool dates_arrivals)
    : segment_(segment), fd_(fd), stamping_socket_(dates_arrivals ? open_stamping_socket() : -1) {
  std::mutex started_lock;
  std::condition_variable started;
  bool holds = false;
  // The thread inherits a full mask: signals are for Node's own threads.
  sigset_t every, kept;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &kept);
  thread_ = std::thread([&, this] { run(&started_lock, &started, &holds); });
  pthread_sigmask(SIG_SETMASK, &kept, nullptr);
  {
    std::unique_lock<std::mutex> guard(started_lock);
    started.wait(guard, [&] { return holds; });
  }
  std::lock_guard<std::mutex> guard(all_lock);
  all.insert(this);
}

Lease::~Lease() {
  {
    std::lock_guard<std::mutex> guard(all_lock);
    all.erase(this);
    suspended.erase(this);
  }
  {
    std::lock_guard<std::mutex> guard(lock_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  if (stamping_socket_ >= 0) close(stamping_socket_);
}

void Lease::run(std::mutex* started_lock, std::condition_variable* started, bool* holds) {
  pthread_setname_np(pthread_self(), "mishap-lease");
  pthread_mutex_t* mutex = owner_lock(segment_.header);
  if (pthread_mutex_lock(mutex) == EOWNERDEAD) pthread_mutex_consistent(mutex);
  renew();
  {
    // Notified under the lock: the creator's condition variable is gone as soon as it sees `holds`.
    std::lock_guard<std::mutex> guard(*started_lock);
    *holds = true;
    started->notify_all();
  }
  std::unique_lock<std::mutex> guard(lock_);
  while (!wake_.wait_for(guard, kRenewal, [this] { return stop_; })) renew();
  pthread_mutex_unlock(mutex);
}

void Lease::renew() {
  if (still_backed(segment_, fd_)) store_release(&segment_.header->lease_expiry_ns, monotonic_ns() + kLeaseNs);
}

bool Lease::pause() { return change_state(segment_, State::Active, State::Paused); }

bool Lease::resume() {
  renew();
  return change_state(segment_, State::Paused, State::Active);
}

void retire(const Segment& segment) {
  store_release(&segment.header->state, static_cast<u32>(State::Retired));
  wake_waits(segment);
}

void suspend_all() {
  std::lock_guard<std::mutex> guard(all_lock);
  for (Lease* lease : all)
    if (lease->pause()) suspended.insert(lease);
}

void continue_all() {
  std::lock_guard<std::mutex> guard(all_lock);
  for (Lease* lease : suspended) lease->resume();
  suspended.clear();
}

bool still_backed(const Segment& segment, int fd) {
  struct stat st;
  if (fstat(fd, &st) != 0 || static_cast<u64>(st.st_size) >= segment.size) return true;
  const u64 page = static_cast<u64>(sysconf(_SC_PAGESIZE));
  const u64 kept = (static_cast<u64>(st.st_size) + page - 1) / page * page;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  if (kept < segment.size) mmap(segment.base + kept, segment.size - kept, PROT_READ | PROT_WRITE, flags, -1, 0);
  return false;
}

}  // namespace mishap
