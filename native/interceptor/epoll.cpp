// epoll. Every registration of our sockets is remembered. While its socket is not linked it is the program's own; once the
// socket is, the kernel has one of ours in its place: edge-triggered for everything, with a pointer to the Registration as
// data, so that an arrival wakes a waiter once. Level, edge and oneshot are then made here, from what look() lets be seen.
//
//   epoll_wait: gather() looks at the linked ones that may have changed ─▶ their events
//               the kernel, without waiting if there are any ───────────▶ events of all others, and private ones: a hint to
//                                                                         look at a Registration, or the set's timer
//
// The timer, one a set and registered in it, is armed for the earliest due time, so that whichever thread waits is woken,
// exactly, and whoever polls the set from outside too. A set is shared with forked children; private events are hints
// only, so it does no harm when the wrong process or a later owner of a Registration gets one.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "readiness.h"

namespace mishap {

u32 epoll_sets;

// An epoll set of this process.
struct EpollSet {
  u32 refs;      // descriptors that mean it; 0 free
  u32 waiters;   // threads that sleep in it
  u32 generation;  // of the header when all were last looked at
  u32 linked;    // registrations on the list
  u32 waits;     // counts the program's calls
  Registration *first, *last;  // those that are linked, who was served last behind
  int epfd;      // one of its descriptors
  int timer;     // -1 none
  u64 armed_ns;
  bool watched;  // polled from outside
  bool turn;     // whose turn it is when there is room for one event: true the linked ones'
};

// A descriptor in a set.
struct Registration {
  EpollSet* set;          // nullptr: free
  Socket* socket;
  Registration* next;             // of the same socket; of a free one: the next free one
  Registration *before, *behind;  // in the set's list
  u64 data;          // the program's
  u64 in_mark;       // of the sight last reported
  u64 due_ns;        // when to look again; 0: not before something happens
  u32 wanted;        // the program's events and flags
  u32 refused;       // the socket's count, when writable was last reported
  u32 told;          // the wait that last reported it: none does so twice
  int fd;
  i32 pid;           // of the process that registered it: only there does it end with the descriptor
  bool linked;       // the kernel has ours in its place
  bool listed, fresh, hot, spent;
};

namespace {

constexpr u32 kSets = 4096, kRegistrations = 1 << 17;
constexpr u32 kPrivateEvents = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
constexpr u32 kUnasked = EPOLLERR | EPOLLHUP;
constexpr u32 kReadable = EPOLLIN | EPOLLPRI | EPOLLRDNORM | EPOLLRDBAND | EPOLLRDHUP | kUnasked;
constexpr u32 kWritable = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;

// One place for all of it: a pointer into it that comes out of the kernel is ours. Untouched pages cost nothing.
struct {
  EpollSet sets[kSets];
  Registration registrations[kRegistrations];
} tables;
u32 registrations_used;
Registration* free_registration;
u16 set_numbers[kDescriptors];  // which set a descriptor is, counted from 1; 0 none

// Guards all of the above. Held for looks and for calls that do not sleep; a thread may take it again.
u32 holder;  // its thread's id
class Locked {
 public:
  Locked() {
    const u32 me = static_cast<u32>(thread_id());
    again_ = load(&holder) == me;
    for (u32 tries = 0; !again_ && !swap_if(&holder, 0u, me); tries++)
      if (tries > 100) real.syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
  }
  ~Locked() {
    if (!again_) store_release(&holder, 0u);
  }
  Locked(const Locked&) = delete;

 private:
  bool again_;
};

bool is_ours(u64 data) { return data - reinterpret_cast<u64>(&tables) < sizeof(tables); }
// What a private event is about; nullptr: the timer.
Registration* registration_behind(u64 data) {
  const u64 offset = data - reinterpret_cast<u64>(tables.registrations);
  return offset < sizeof(tables.registrations) && offset % sizeof(Registration) == 0 ? reinterpret_cast<Registration*>(data) : nullptr;
}

EpollSet* set_of(int epfd) {
  u32 number = static_cast<u32>(epfd) < kDescriptors ? load(&set_numbers[epfd]) : 0;
  return number ? &tables.sets[number - 1] : nullptr;
}

// ---- registrations ----------------------------------------------------------------------------------------------------

Registration* take() {
  Registration* fresh = free_registration;
  if (fresh) free_registration = fresh->next;
  else if (registrations_used < kRegistrations) fresh = &tables.registrations[registrations_used++];
  else count(Fallback::TableFull);
  if (fresh) *fresh = {};
  return fresh;
}

void unlist(Registration* r) {
  if (!r->listed) return;
  (r->before ? r->before->behind : r->set->first) = r->behind;
  (r->behind ? r->behind->before : r->set->last) = r->before;
  r->listed = false;
  r->set->linked--;
}

// At the end of the list, also when it was on it: who was served waits for the others.
void enlist(Registration* r) {
  unlist(r);
  r->before = r->set->last;
  r->behind = nullptr;
  (r->before ? r->before->behind : r->set->first) = r;
  r->set->last = r;
  r->listed = true;
  r->set->linked++;
}

void give_back(Registration* r) {
  *r = {};
  r->next = free_registration;
  free_registration = r;
}

void drop(Registration* r) {
  unlist(r);
  for (Registration** link = &r->socket->registrations; *link; link = &(*link)->next)
    if (*link == r) {
      *link = r->next;
      break;
    }
  give_back(r);
}

Registration* find(const Socket* socket, const EpollSet* set, int fd) {
  for (Registration* r = socket->registrations; r; r = r->next)
    if (r->set == set && r->fd == fd) return r;
  return nullptr;
}

int tell_kernel(EpollSet* set, int op, int fd, u32 events, u64 data) {
  epoll_event event = {};
  event.events = events;
  event.data.u64 = data;
  return real.epoll_ctl(set->epfd, op, fd, &event);
}

void renew(Registration* r) {
  r->fresh = r->hot = true;
  r->spent = false;
  r->due_ns = 0;
}

// What the kernel has registered for a descriptor, or all of a set: calls found(fd, events, data).
template <class Found>
void for_registered(int epfd, Found found) {
  char path[40] = "/proc/self/fdinfo/", digits[12];
  int n = 0;
  for (int rest = epfd; n == 0 || rest; rest /= 10) digits[n++] = static_cast<char>('0' + rest % 10);
  for (u64 at = strlen(path); n;) path[at++] = digits[--n];
  int fd = static_cast<int>(real.syscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>(path), O_RDONLY | O_CLOEXEC, 0, 0, 0));
  if (fd < 0) return;
  char text[4096];
  for (long have = 0, got; (got = real.syscall(SYS_read, fd, reinterpret_cast<long>(text + have), static_cast<long>(sizeof(text)) - 1 - have, 0, 0, 0)) > 0;) {
    have += got;
    text[have] = 0;
    char* line = text;
    for (char* end; (end = strchr(line, '\n')); line = end + 1) {
      if (strncmp(line, "tfd:", 4)) continue;
      char* at;
      const int tfd = static_cast<int>(strtol(line + 4, &at, 10));
      at = strstr(at, "events:");
      if (!at || at > end) continue;
      const u32 events = static_cast<u32>(strtoul(at + 7, &at, 16));
      at = strstr(at, "data:");
      if (!at || at > end) continue;
      found(tfd, events, strtoull(at + 5, nullptr, 16));
    }
    have -= line - text;
    memmove(text, line, static_cast<size_t>(have));
  }
  real.syscall(SYS_close, fd, 0, 0, 0, 0, 0);
}

// Puts ours in the place of the program's own. The kernel takes no change of an exclusive one, and turns a oneshot off
// once it was reported: only the kernel knows whether it was.
void link_registration(Registration* r) {
  EpollSet* set = r->set;
  bool off = false;
  if (r->wanted & EPOLLONESHOT)
    for_registered(set->epfd, [&](int fd, u32 events, u64) { off |= fd == r->fd && !(events & (r->wanted & ~(EPOLLET | EPOLLONESHOT | EPOLLWAKEUP))); });
  if (r->wanted & EPOLLEXCLUSIVE) real.epoll_ctl(set->epfd, EPOLL_CTL_DEL, r->fd, nullptr);
  if (tell_kernel(set, r->wanted & EPOLLEXCLUSIVE ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, r->fd, kPrivateEvents, reinterpret_cast<u64>(r)) != 0) return;
  r->linked = true;
  renew(r);
  r->spent = off;
  enlist(r);
}
// And back; gather() takes it off the list.
void unlink_registration(Registration* r) {
  const u32 events = r->spent ? r->wanted & (EPOLLONESHOT | EPOLLET) : r->wanted & ~EPOLLEXCLUSIVE;
  if (tell_kernel(r->set, EPOLL_CTL_MOD, r->fd, events, r->data) == 0) r->linked = false;
}

void remember(EpollSet* set, Socket* socket, int fd, Registration* r, u32 events, u64 data) {
  r->set = set;
  r->socket = socket;
  r->fd = fd;
  r->pid = self.pid;
  r->wanted = events;
  r->data = data;
  r->next = socket->registrations;
  socket->registrations = r;
}

// ---- sets -------------------------------------------------------------------------------------------------------------

// The set behind a descriptor, made with what the kernel knows to be in it already; nullptr: no epoll set, or no room.
EpollSet* learn_set(int epfd) {
  if (EpollSet* known = set_of(epfd)) return known;
  if (static_cast<u32>(epfd) >= kDescriptors) return nullptr;
  for (u32 i = 0; i < kSets; i++) {
    EpollSet* set = &tables.sets[i];
    if (set->refs) continue;
    *set = {};
    set->refs = 1;
    set->epfd = epfd;
    set->timer = -1;
    store(&set_numbers[epfd], static_cast<u16>(i + 1));
    store(&kinds[epfd], static_cast<u8>(Kind::Foreign));
    add(&epoll_sets, 1u);
    for_registered(epfd, [&](int fd, u32 events, u64 data) {
      Socket* socket = is_ours(data) ? nullptr : socket_of(fd);
      Registration* r = socket && !socket->listening ? take() : nullptr;
      if (!r) return;
      remember(set, socket, fd, r, events, data);
      if (linked_socket(fd)) link_registration(r);
    });
    return set;
  }
  count(Fallback::TableFull);
  return nullptr;
}

void forget_set(int fd) {
  EpollSet* set = set_of(fd);
  if (!set) return;
  store(&set_numbers[fd], u16{0});
  if (--set->refs) {
    for (u32 other = 0; set->epfd == fd && other < kDescriptors; other++)
      if (set_of(static_cast<int>(other)) == set) set->epfd = static_cast<int>(other);
    return;
  }
  if (set->timer >= 0) close_private(set->timer);
  for (u32 i = 0; i < registrations_used; i++)
    if (tables.registrations[i].set == set) drop(&tables.registrations[i]);
  add(&epoll_sets, ~0u);
}

// ---- the timer --------------------------------------------------------------------------------------------------------

bool set_timer(EpollSet* set, u64 at_ns) {
  itimerspec at = {{0, 0}, timespec_of(at_ns)};
  return real.syscall(SYS_timerfd_settime, set->timer, TFD_TIMER_ABSTIME, reinterpret_cast<long>(&at), 0, 0, 0) == 0;
}

// Wakes a waiter at `due_ns`, or somewhat before. False: there is no timer to be had.
bool arm(EpollSet* set, u64 due_ns, u64 now) {
  if (set->armed_ns > now && set->armed_ns <= due_ns) return true;
  set->armed_ns = due_ns;
  if (set->timer >= 0 && is_private(set->timer) && set_timer(set, due_ns)) return true;
  // None yet, or the program took its number.
  set->timer = make_private(static_cast<int>(real.syscall(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK, 0, 0, 0, 0)));
  if (set->timer < 0) return false;
  if (tell_kernel(set, EPOLL_CTL_ADD, set->timer, EPOLLIN | EPOLLET, reinterpret_cast<u64>(set)) == 0 && set_timer(set, due_ns)) return true;
  close_private(set->timer);
  set->timer = -1;
  return false;
}

// Another waiter, or whoever polls the set, has something to find in it.
void kick(EpollSet* set) {
  set->armed_ns = 0;
  arm(set, 1, 0);
  set->armed_ns = 0;
}

// ---- what is to be reported -------------------------------------------------------------------------------------------

struct Found {
  int count = 0;      // events written
  bool more = false;  // something is to be reported, and there was no room
  bool left = false;  // another waiter would find something too
  u32 withheld = 0;   // flows that have something due later
  u64 due_ns = kForever;
};

// Many flows that fall due one after another share a wake-up: each is this much late at most, and the program wakes for
// several, as it would with a network that delivers in batches.
constexpr u32 kCrowd = 16;
constexpr u64 kTogetherNs = 1 << 17;

// Whether there is an event for the program, by its own rules. An edge is more to be read than when it was last told, or
// room after a send was refused some.
bool to_report(const Registration* r, const Sight& sight, u32 visible) {
  if (!visible || r->fresh || !(r->wanted & EPOLLET)) return visible;
  return ((visible & kReadable) && sight.in_mark > r->in_mark) || ((visible & kWritable) && load(&r->socket->refused) != r->refused);
}

// Looks at one and writes its event if it has one.
void look_at(Registration* r, epoll_event* events, int room, bool waited, u64 now, u32 wait, Found* found) {
  Socket* socket = r->socket;
  const u32 refused = load(&socket->refused);
  Sight sight = look(r->fd, socket, waited);
  const u32 visible = static_cast<u16>(with_synonyms(sight.events, *socket)) & (r->wanted | kUnasked);
  r->due_ns = still_ahead(sight.due_ns, now);
  store(&r->hot, false);
  if (!r->linked || !to_report(r, sight, visible)) return;  // a connect that ended may have ended the link
  const bool edge = r->wanted & EPOLLET;
  if (found->count == room) {
    found->more = found->left = true;
    store(&r->hot, true);
    return;
  }
  events[found->count].events = visible;
  events[found->count++].data.u64 = r->data;
  r->fresh = false;
  r->told = wait;
  r->in_mark = sight.in_mark;
  if (visible & kWritable) r->refused = refused;
  r->spent = r->wanted & EPOLLONESHOT;
  // Level: reported again until it is no longer to be seen. Datagrams: the next is dated once this one is gone.
  store(&r->hot, !r->spent && (!edge || !socket->stream));
  found->left |= r->hot && !edge;
  enlist(r);
}

// Goes over the linked ones that may have changed, and writes at most `room` events.
Found gather(EpollSet* set, epoll_event* events, int room, bool waited, u32 wait) {
  Found found;
  const u32 generation = load(&self.segment.header->generation);
  const bool changed = set->generation != generation;
  set->generation = generation;
  const u64 now = set->linked ? now_ns() : 0;
  Registration* r = set->first;
  for (u32 left = set->linked; r && left; left--) {
    Registration* next = r->behind;
    if (changed) store(&r->hot, true), linked_socket(r->fd);
    if (!r->linked) unlist(r);
    else if (!r->spent && r->told != wait && (load(&r->hot) || (r->due_ns && r->due_ns <= now) || ((r->wanted & EPOLLOUT) && load(&r->socket->refused) != r->refused)))
      look_at(r, events, room, waited, now, wait, &found);
    if (r->linked && !r->spent) {
      found.due_ns = sooner(r->due_ns, found.due_ns);
      found.withheld += r->due_ns != 0;
    }
    r = next;
  }
  if (found.withheld >= kCrowd) found.due_ns = (found.due_ns + kTogetherNs - 1) & ~(kTogetherNs - 1);
  return found;
}

// Takes the private events out of what the kernel gave; what they are about is looked at next.
int without_private(const EpollSet* set, epoll_event* events, int n, bool* any) {
  int kept = 0;
  for (int i = 0; i < n; i++) {
    const u64 data = events[i].data.u64;
    if (is_ours(data)) {
      *any = true;
      Registration* r = registration_behind(data);
      if (r && load(&r->set) == set) store(&r->hot, true);
    } else if (kept++ != i) {
      events[kept - 1] = events[i];
    }
  }
  return kept;
}

// How long the program waits, and how it said so.
struct Patience {
  u64 deadline_ns;
  bool exact;  // epoll_pwait2
  const sigset_t* mask;
};

int ask_kernel(int epfd, epoll_event* events, int room, u64 until_ns, const Patience& patience) {
  u64 now = until_ns == 0 || until_ns == kForever ? 0 : now_ns();
  u64 left = until_ns > now ? until_ns - now : 0;
  if (patience.exact) {
    timespec t = timespec_of(left);
    timespec* timeout = until_ns == kForever ? nullptr : &t;
    return static_cast<int>(real.syscall(SYS_epoll_pwait2, epfd, reinterpret_cast<long>(events), room, reinterpret_cast<long>(timeout),
                                         reinterpret_cast<long>(patience.mask), 8));
  }
  u64 ms = (left + 999999) / 1000000;
  int timeout = until_ns == kForever ? -1 : static_cast<int>(ms < 0x7fffffff ? ms : 0x7fffffff);
  return patience.mask ? real.epoll_pwait(epfd, events, room, timeout, patience.mask) : real.epoll_wait(epfd, events, room, timeout);
}

// One pass over the linked ones: what is to be seen, and how long the kernel may be asked to wait for the others; `last`: it
// is not asked any more. False: called from inside itself.
bool prepare(EpollSet* set, epoll_event* events, int room, bool waited, bool last, u32 wait, const Patience& patience, Found* found, u64* until) {
  Guard guard;
  if (!guard) return false;
  Locked locked;
  // Others are not starved: there is always room for one of them, at least every other time.
  *found = gather(set, events, last ? room : room > 1 ? room - 1 : (set->turn = !set->turn), waited, wait);
  const u64 now = now_ns();
  const bool stay = last || found->count || found->more || now >= patience.deadline_ns;
  *until = stay ? 0 : patience.deadline_ns;
  if (!stay || set->waiters || set->watched) {
    const bool due = found->due_ns != kForever;
    if (found->left) kick(set);
    else if (due && !arm(set, found->due_ns, now) && !stay) *until = sooner(found->due_ns, *until);
    if (due && !stay) *until = sooner(now + kLookAgainNs, *until);
  }
  if (!stay) add(&set->waiters, 1u);
  return true;
}

int wait_on_set(int epfd, EpollSet* set, epoll_event* events, int room, const Patience& patience) {
  const int kept = errno;
  const u32 wait = __atomic_add_fetch(&set->waits, 1u, __ATOMIC_RELAXED);
  bool waited = false, asked = false, last = false;
  for (int have = 0;;) {
    Found found;
    u64 until = 0;
    if (!prepare(set, events + have, room - have, waited, last, wait, patience, &found, &until)) {
      errno = EINTR;
      return -1;
    }
    have += found.count;
    int n = 0;
    bool any = false;
    if (have < room && !last && !(have && asked)) {
      n = ask_kernel(epfd, events + have, room - have, until, patience);
      if (until) __atomic_fetch_sub(&set->waiters, 1u, __ATOMIC_RELAXED);
      if (n < 0 && !(have && errno == EINTR)) return -1;
      asked = true;
      if (n > 0) have += without_private(set, events + have, n, &any);
    }
    const bool over = now_ns() >= patience.deadline_ns;
    // What private events are about belongs to this very answer, as far as it has room.
    if (last || have == room || (!any && (have || (over && !found.more)))) {
      errno = kept;
      return have;
    }
    waited = until != 0;
    last = have || (over && !found.more);
  }
}

// A wait of the program. A set that holds nothing linked is the kernel's business, but for what turned linked meanwhile.
// `patience`: what the program asked for, counted from a given time on, which matters where it is `timed`.
template <class Original, class Patient>
inline int wait_for(int epfd, void* given, int room, bool timed, Patient patience, Original original) {
  if (!load(&self.linked) || !given || room <= 0) return original();
  auto* events = static_cast<epoll_event*>(given);
  EpollSet* set = set_of(epfd);
  if (!set) {
    Guard guard;
    if (!guard) return original();
    int kept = errno;
    Locked locked;
    set = learn_set(epfd);
    errno = kept;
    if (!set) return original();
  }
  if (load(&set->linked)) return wait_on_set(epfd, set, events, room, patience(now_ns()));
  const u64 start = timed ? coarse_now_ns() : 0;
  int n = original();
  bool any = false;
  int have = n > 0 ? without_private(set, events, n, &any) : n;
  return have || !any ? have : wait_on_set(epfd, set, events, room, patience(start));
}

Patience for_ms(int timeout_ms, const sigset_t* mask, u64 now) {
  return {timeout_ms < 0 ? kForever : timeout_ms == 0 ? 0 : deadline_in(now, 0, static_cast<u64>(timeout_ms) * 1000000), false, mask};
}

}  // namespace

void watch_epoll(int fd) {
  if (!set_of(fd)) return;
  Locked locked;
  EpollSet* set = set_of(fd);
  if (!set) return;
  set->watched = true;
  Found found = gather(set, nullptr, 0, false, 0);
  if (found.left) kick(set);
  else if (found.due_ns != kForever) arm(set, found.due_ns, now_ns());
}

void copy_epoll(int from, int to) {
  if (!set_of(from) || static_cast<u32>(to) >= kDescriptors || getpid() != self.pid) return;
  Locked locked;
  EpollSet* set = set_of(from);
  if (!set) return;
  set->refs++;
  store(&set_numbers[to], load(&set_numbers[from]));
  store(&kinds[to], static_cast<u8>(Kind::Foreign));
}

void forget_epoll(int fd) {
  if (!set_of(fd) || getpid() != self.pid) return;
  Locked locked;
  forget_set(fd);
}

void leave_epoll(int fd, Socket* socket, bool open) {
  if (!load(&socket->registrations)) return;
  Locked locked;
  for (Registration *r = socket->registrations, *next; r; r = next) {
    next = r->next;
    if (r->fd != fd) continue;
    // The kernel would keep it as long as anyone has the socket open: a child, or the courier.
    if (open && r->linked && r->pid == self.pid) real.epoll_ctl(r->set->epfd, EPOLL_CTL_DEL, fd, nullptr);
    drop(r);
  }
}

void relink(Socket* socket) {
  if (!load(&socket->registrations)) return;
  int kept = errno;
  Locked locked;
  for (Registration* r = socket->registrations; r; r = r->next) {
    if (socket->linked && !r->linked) link_registration(r);
    else if (!socket->linked && r->linked) unlink_registration(r);
  }
  errno = kept;
}

void lock_epoll() {
  const u32 me = static_cast<u32>(thread_id());
  for (u32 tries = 0; load(&holder) != me && !swap_if(&holder, 0u, me); tries++)
    if (tries > 100) real.syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}
void unlock_epoll() { store_release(&holder, 0u); }

void keep_epoll_after_fork() {
  for (u32 i = 0; load(&epoll_sets) && i < kSets; i++) {
    EpollSet* set = &tables.sets[i];
    set->waiters = 0;
    if (!set->refs || set->timer < 0) continue;
    close_private(set->timer);  // the parent's
    set->timer = -1;
    set->armed_ns = 0;
  }
  store_release(&holder, 0u);
}

namespace slow {

int epoll_ctl(int epfd, int op, int fd, void* given) {
  const auto* event = static_cast<epoll_event*>(given);
  auto pass = [&] { return real.epoll_ctl(epfd, op, fd, given); };
  if (!self.attached || (!event && op != EPOLL_CTL_DEL)) return pass();
  Guard guard(fd);
  if (!guard) return pass();
  const int kept = errno;
  if (op == EPOLL_CTL_ADD) watch_if_epoll(fd);
  Socket* socket = socket_of(fd);
  errno = kept;
  if (!socket || socket->listening) return pass();
  Locked locked;
  EpollSet* set = learn_set(epfd);
  const bool linked = linked_socket(fd);
  errno = kept;
  if (!set) return pass();
  set->epfd = epfd;
  Registration* known = find(socket, set, fd);
  if (op == EPOLL_CTL_ADD) {
    const bool ours = linked && !(event->events & EPOLLEXCLUSIVE);
    Registration* fresh = take();
    if (!fresh) return pass();
    int result = ours ? tell_kernel(set, op, fd, kPrivateEvents, reinterpret_cast<u64>(fresh)) : pass();
    if (result != 0) {
      give_back(fresh);
      return result;
    }
    if (known) drop(known);  // the kernel knew better
    remember(set, socket, fd, fresh, event->events, event->data.u64);
    if (ours) {
      fresh->linked = true;
      renew(fresh);
      enlist(fresh);
    } else if (linked) {
      link_registration(fresh);
    }
    return result;
  }
  if (op == EPOLL_CTL_DEL && known) drop(known);
  if (op != EPOLL_CTL_MOD || !known) return pass();
  if (known->linked && ((known->wanted | event->events) & EPOLLEXCLUSIVE)) {
    errno = EINVAL;
    return -1;
  }
  int result = known->linked ? tell_kernel(set, op, fd, kPrivateEvents, reinterpret_cast<u64>(known)) : pass();
  if (result != 0) return result;
  known->wanted = event->events;
  known->data = event->data.u64;
  renew(known);
  return result;
}

int epoll_wait(int epfd, void* events, int room, int timeout_ms) {
  auto patience = [&](u64 now) { return for_ms(timeout_ms, nullptr, now); };
  return wait_for(epfd, events, room, timeout_ms > 0, patience, [&] { return real.epoll_wait(epfd, events, room, timeout_ms); });
}

int epoll_pwait(int epfd, void* events, int room, int timeout_ms, const sigset_t* mask) {
  auto patience = [&](u64 now) { return for_ms(timeout_ms, mask, now); };
  return wait_for(epfd, events, room, timeout_ms > 0, patience, [&] { return real.epoll_pwait(epfd, events, room, timeout_ms, mask); });
}

int epoll_pwait2(int epfd, void* events, int room, const timespec* timeout, const sigset_t* mask) {
  auto original = [&] {
    if (real.epoll_pwait2) return real.epoll_pwait2(epfd, events, room, timeout, mask);
    return static_cast<int>(real.syscall(SYS_epoll_pwait2, epfd, reinterpret_cast<long>(events), room, reinterpret_cast<long>(timeout),
                                         reinterpret_cast<long>(mask), 8));
  };
  if (timeout && !sensible(timeout)) return original();
  const u64 seconds = timeout ? static_cast<u64>(timeout->tv_sec) : 0, ns = timeout ? static_cast<u64>(timeout->tv_nsec) : 0;
  auto patience = [&](u64 now) { return Patience{!timeout ? kForever : seconds || ns ? deadline_in(now, seconds, ns) : 0, true, mask}; };
  return wait_for(epfd, events, room, timeout && (seconds || ns), patience, original);
}

}  // namespace slow
}  // namespace mishap
