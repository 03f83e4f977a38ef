// This process's part in a run: attaching to the segment, numbering threads and processes by who started whom in which
// order (never by pid or time), and handing preload, segment and number on to children, whatever environment they get.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interceptor.h"

namespace mishap {

constinit Self self = {};
thread_local constinit Thread thread = {};

namespace {

constexpr char kSegmentVariable[] = "MISHAP_SEGMENT";
constexpr char kLineageVariable[] = "MISHAP_LINEAGE";
constexpr char kPreloadVariable[] = "LD_PRELOAD";
constexpr u64 kUnnumbered = 4;  // Header::determinism

char segment_entry[sizeof(kSegmentVariable) + 128];
char library_path[256];

void append(char* to, u32 capacity, const char* text) {
  u32 n = static_cast<u32>(strlen(to));
  for (; *text && n + 1 < capacity; n++) to[n] = *text++;
  to[n] = 0;
}
void append_number(char* to, u32 capacity, u64 number) {
  char digits[21];
  u32 n = sizeof(digits);
  digits[--n] = 0;
  do digits[--n] = static_cast<char>('0' + number % 10);
  while (number /= 10);
  append(to, capacity, digits + n);
}

// Start time in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)).
u64 start_time_of(i32 pid) {
  char text[512] = "/proc/";
  append_number(text, sizeof(text), static_cast<u64>(pid));
  append(text, sizeof(text), "/stat");
  int fd = static_cast<int>(real.syscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>(text), O_RDONLY | O_CLOEXEC, 0, 0, 0));
  if (fd < 0) return 0;
  long n = real.syscall(SYS_read, fd, reinterpret_cast<long>(text), sizeof(text) - 1, 0, 0, 0);
  real.syscall(SYS_close, fd, 0, 0, 0, 0, 0);
  if (n <= 0) return 0;
  text[n] = 0;
  const char* p = strrchr(text, ')');  // the command may hold spaces and brackets
  for (int field = 2; p && field < 22; field++) p = strchr(p + 1, ' ');
  u64 value = 0;
  for (p = p ? p + 1 : ""; *p >= '0' && *p <= '9'; p++) value = value * 10 + static_cast<u64>(*p - '0');
  return value;
}

constexpr u32 kPidDigits = 10;  // fixed, so that the number can be written over in place

void write_pid(char* to, u64 pid) {
  for (u32 i = kPidDigits; i-- > 0; pid /= 10) to[i] = static_cast<char>('0' + pid % 10);
}

// MISHAP_LINEAGE is "path@pid": the number meant for that process, or for whoever is started with it when pid is 0. Once
// taken, our pid is written into it, so that children started behind our back see that it was not meant for them.
void read_lineage() {
  char* text = getenv(kLineageVariable);
  char* at = text ? strrchr(text, '@') : nullptr;
  if (at && strlen(at + 1) != kPidDigits) at = nullptr;
  self.lineage[0] = 0;
  if (!at || static_cast<u64>(at - text) >= sizeof(self.lineage)) {
    append(self.lineage, sizeof(self.lineage), "0");
    return;
  }
  memcpy(self.lineage, text, static_cast<u64>(at - text));
  self.lineage[at - text] = 0;
  int meant = atoi(at + 1);
  write_pid(at + 1, static_cast<u64>(self.pid));
  if (meant == 0 || meant == self.pid) return;
  append(self.lineage, sizeof(self.lineage), "/?");  // started by a way we do not see (system, popen): no number of its own
  if (self.attached) __atomic_fetch_or(&self.segment.header->determinism, kUnnumbered, __ATOMIC_RELAXED);
}

void enter_process() {
  self.pid = getpid();
  if (!self.attached) return;
  char program[256];
  long n = readlink("/proc/self/exe", program, sizeof(program) - 1);
  program[n > 0 ? n : 0] = 0;
  const u64 start = start_time_of(self.pid);
  self.process = process_key(self.pid, start);
  register_process(self.segment, self.pid, start, self.lineage, program, now_ns());
}

// fork: the child is the n-th of the thread that forked, and starts a tree of its own.
void before_fork() {
  name_thread();
  thread.children++;
  lock_epoll();
}
void after_fork_in_child() {
  int kept = errno;
  keep_epoll_after_fork();
  drop_inherited_timers();
  append(thread.path, sizeof(thread.path), "/");
  append_number(thread.path, sizeof(thread.path), thread.children);
  memcpy(self.lineage, thread.path, sizeof(self.lineage));
  thread.children = 0;
  memset(thread.flows, 0, sizeof(thread.flows));
  thread.tid = 0;
  drop_inherited_holds();
  enter_process();
  errno = kept;
}

pthread_key_t rows_key;  // of a thread's copies of rows
bool have_rows_key;

void drop_rows(void* memory) {
  engine::keep_rows(nullptr);
  unmap_buffer(static_cast<u8*>(memory), engine::kept_rows_bytes());
}

// Anew in every image: a descriptor handed down would not survive programs that close theirs.
void find_kernel() {
  char path[sizeof(sockaddr_un::sun_path)] = "";
  append(path, sizeof(path), segment_path());
  append(path, sizeof(path), ".kernel");
  meet_kernel(path);
}

__attribute__((constructor)) void start() {
  int kept = errno;
  resolve_originals();
  self.pid = getpid();
  const char* path = getenv(kSegmentVariable);
  if (path && strlen(path) < 128 && !getauxval(AT_SECURE)) {
    Segment segment;
    AttachError error = attach(path, &segment);
    if (error == AttachError::None) {
      self.segment = segment;
      self.attached = true;
      if (strlen(path) + sizeof(".courier") <= sizeof(self.courier_path)) {
        append(self.courier_path, sizeof(self.courier_path), path);
        append(self.courier_path, sizeof(self.courier_path), ".courier");
      }
    }
    append(segment_entry, sizeof(segment_entry), kSegmentVariable);
    append(segment_entry, sizeof(segment_entry), "=");
    append(segment_entry, sizeof(segment_entry), path);
  }
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&resolve_originals), &info) && info.dli_fname && strlen(info.dli_fname) < sizeof(library_path))
    append(library_path, sizeof(library_path), info.dli_fname);
  read_lineage();
  memcpy(thread.path, self.lineage, sizeof(thread.path));
  thread.named = true;
  enter_process();
  self.counted = self.attached && (load(&self.segment.header->flags) & kHeaderKernel);
  if (self.counted) find_kernel();
  if (self.attached) meet_script();
  have_rows_key = self.attached && pthread_key_create(&rows_key, drop_rows) == 0;
  pthread_atfork(before_fork, unlock_epoll, after_fork_in_child);
  self.ready = true;
  meet_courier();
  for (int fd = 0; fd < 3; fd++) adopt_standard_stream(fd);
  errno = kept;
}

__attribute__((destructor)) void end() { release_everything(); }

// ---- environments of children -----------------------------------------------------------------------------------------

u32 entries_of(char* const* list) {
  u32 n = 0;
  while (list && list[n]) n++;
  return n;
}
bool names(const char* entry, const char* variable) {
  size_t n = strlen(variable);
  return strncmp(entry, variable, n) == 0 && entry[n] == '=';
}

// A child's environment: what the program gave, with our three entries put right. Lives on the caller's stack, because
// this runs between vfork and exec too.
struct Inheritance {
  char lineage[sizeof(kLineageVariable) + 64];
  char preload[1024];
};
constexpr u32 kOwnEntries = 3;

void inherit(char* const* from, char** to, Inheritance* own, bool new_process) {
  own->lineage[0] = own->preload[0] = 0;
  append(own->lineage, sizeof(own->lineage), kLineageVariable);
  append(own->lineage, sizeof(own->lineage), "=");
  bool vforked = getpid() != self.pid;  // a vfork child shares our memory but not our pid
  if (new_process || vforked) {
    name_thread();
    append(own->lineage, sizeof(own->lineage), thread.path);
    append(own->lineage, sizeof(own->lineage), "/");
    append_number(own->lineage, sizeof(own->lineage), ++thread.children);
    append(own->lineage, sizeof(own->lineage), "@0000000000");
  } else {
    append(own->lineage, sizeof(own->lineage), self.lineage);
    append(own->lineage, sizeof(own->lineage), "@0000000000");
    write_pid(own->lineage + strlen(own->lineage) - kPidDigits, static_cast<u64>(self.pid));
  }
  append(own->preload, sizeof(own->preload), kPreloadVariable);
  append(own->preload, sizeof(own->preload), "=");
  append(own->preload, sizeof(own->preload), library_path);
  u32 n = 0;
  for (u32 i = 0; from && from[i]; i++) {
    if (names(from[i], kSegmentVariable) || names(from[i], kLineageVariable)) continue;
    if (names(from[i], kPreloadVariable)) {
      const char* theirs = from[i] + sizeof(kPreloadVariable);
      if (strstr(theirs, library_path)) {  // keep the program's own order
        own->preload[sizeof(kPreloadVariable)] = 0;
        append(own->preload, sizeof(own->preload), theirs);
      } else if (theirs[0]) {
        append(own->preload, sizeof(own->preload), ":");
        append(own->preload, sizeof(own->preload), theirs);
      }
      continue;
    }
    to[n++] = from[i];
  }
  to[n++] = own->preload;
  to[n++] = segment_entry;
  to[n++] = own->lineage;
  to[n] = nullptr;
}

bool hands_on() { return self.attached && library_path[0] && active(); }

void leave_image() {
  if (getpid() != self.pid) return;
  release_everything();
  if (Process* process = find_process(self.segment, self.pid, start_time_of(self.pid)))
    store(&process->state, static_cast<u32>(ProcessState::Execing));
}
void stay_in_image() {
  if (getpid() != self.pid) return;
  if (Process* process = find_process(self.segment, self.pid, start_time_of(self.pid)))
    store(&process->state, static_cast<u32>(ProcessState::Attached));
}

template <class Exec>
int execute(char* const* envp, Exec exec) {
  if (!hands_on()) return exec(envp);
  char* list[entries_of(envp) + kOwnEntries + 1];
  Inheritance own;
  inherit(envp, list, &own, false);
  leave_image();
  int result = exec(list);
  int kept = errno;
  stay_in_image();
  errno = kept;
  return result;
}

template <class Spawn>
int spawn(char* const* envp, Spawn spawn_with) {
  if (!hands_on()) return spawn_with(envp);
  char* list[entries_of(envp) + kOwnEntries + 1];
  Inheritance own;
  inherit(envp, list, &own, true);
  return spawn_with(list);
}

// A started thread takes its number along.
struct Start {
  void* (*routine)(void*);
  void* argument;
  char path[40];
  u32 used;
};
Start starts[256];

void* run_thread(void* given) {
  Start* start = static_cast<Start*>(given);
  auto routine = start->routine;
  void* argument = start->argument;
  memcpy(thread.path, start->path, sizeof(thread.path));
  thread.named = true;
  store_release(&start->used, 0u);
  return routine(argument);
}

}  // namespace

void keep_rows() {
  void* memory = have_rows_key ? map_buffer(engine::kept_rows_bytes()) : nullptr;
  if (!memory) return;
  if (pthread_setspecific(rows_key, memory) == 0) engine::keep_rows(memory);
  else unmap_buffer(static_cast<u8*>(memory), engine::kept_rows_bytes());
}

const char* segment_path() { return segment_entry + sizeof(kSegmentVariable); }
bool in_project(i32 pid) { return find_process(self.segment, pid, start_time_of(pid)) != nullptr; }

u64 now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<u64>(t.tv_sec) * 1000000000ull + static_cast<u64>(t.tv_nsec);
}

u64 coarse_now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return static_cast<u64>(t.tv_sec) * 1000000000ull + static_cast<u64>(t.tv_nsec);
}

i32 thread_id() {
  if (!thread.tid) thread.tid = static_cast<i32>(real.syscall(SYS_gettid, 0, 0, 0, 0, 0, 0));
  return thread.tid;
}

void name_thread() {
  if (thread.named) return;
  append(thread.path, sizeof(thread.path), self.lineage);
  append(thread.path, sizeof(thread.path), ".?");  // started by a raw clone
  thread.named = true;
  if (self.attached) __atomic_fetch_or(&self.segment.header->determinism, kUnnumbered, __ATOMIC_RELAXED);
}

namespace slow {

int pthread_create(pthread_t* created, const pthread_attr_t* attributes, void* (*routine)(void*), void* argument) {
  if (!self.attached) return real.pthread_create(created, attributes, routine, argument);
  name_thread();
  for (Start& start : starts) {
    if (load(&start.used) || !swap_if(&start.used, 0u, 1u)) continue;
    start.routine = routine;
    start.argument = argument;
    memcpy(start.path, thread.path, sizeof(start.path));
    append(start.path, sizeof(start.path), ".");
    append_number(start.path, sizeof(start.path), ++thread.children);
    int error = real.pthread_create(created, attributes, run_thread, &start);
    if (error) store(&start.used, 0u);
    return error;
  }
  return real.pthread_create(created, attributes, routine, argument);
}

int execve(const char* path, char* const* argv, char* const* envp) {
  return execute(envp, [&](char* const* list) { return real.execve(path, argv, list); });
}
int execv(const char* path, char* const* argv) { return slow::execve(path, argv, environ); }
int execvpe(const char* file, char* const* argv, char* const* envp) {
  return execute(envp, [&](char* const* list) { return real.execvpe(file, argv, list); });
}
int execvp(const char* file, char* const* argv) { return slow::execvpe(file, argv, environ); }
int fexecve(int fd, char* const* argv, char* const* envp) {
  return execute(envp, [&](char* const* list) { return real.fexecve(fd, argv, list); });
}
int execveat(int directory, const char* path, char* const* argv, char* const* envp, int flags) {
  return execute(envp, [&](char* const* list) {
    if (real.execveat) return real.execveat(directory, path, argv, list, flags);
    return static_cast<int>(real.syscall(SYS_execveat, directory, reinterpret_cast<long>(path), reinterpret_cast<long>(argv), reinterpret_cast<long>(list), flags, 0));
  });
}
int posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions, const posix_spawnattr_t* attributes, char* const* argv, char* const* envp) {
  return spawn(envp, [&](char* const* list) { return real.posix_spawn(pid, path, actions, attributes, argv, list); });
}
int posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions, const posix_spawnattr_t* attributes, char* const* argv, char* const* envp) {
  return spawn(envp, [&](char* const* list) { return real.posix_spawnp(pid, file, actions, attributes, argv, list); });
}

void _exit(int status) {
  if (getpid() == self.pid) release_everything();
  real._exit(status);
}
void _Exit(int status) { slow::_exit(status); }

}  // namespace slow
}  // namespace mishap
