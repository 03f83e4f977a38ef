// The interceptor: the LD_PRELOAD boundary. It knows libc and sockets, and no policy field: what to do comes from the engine
// as decisions, and this folder carries them out on real calls.
//
//   program ──hook──▶ hooks.cpp: not ours? straight to libc (a load and a branch)
//                       └▶ sockets.cpp: which flow is this, which policy holds (engine R0)
//                            └▶ uplink.cpp · downlink.cpp · connecting.cpp · names.cpp: ask the engine step by step,
//                                 └▶ wait.cpp: let time pass until the step is due   (the one seam between what and how)
//                                      └▶ the original call, then engine::commit() of what really happened
//
// Rules that hold for every line here: no allocation, lock or extra syscall unless a fault is being applied; errno is kept;
// safe in signal handlers, after fork, and when called from inside itself: then, and whenever anything is wrong, the call
// passes through to libc.
#pragma once

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>

#include "engine/engine.h"
#include "engine/identity.h"
#include "link/parcel.h"
#include "segment/segment.h"

struct __res_state;

namespace mishap {

// ---- originals: what our hooks stand in front of --------------------------------------------------------------------

struct Originals {
#define FD(result, name, params, args) result(*name) params;
#define ALL(result, name, params, args) result(*name) params;
#include "hooks.def"
#undef FD
#undef ALL
  long (*syscall)(long, long, long, long, long, long, long);
};
extern Originals real;
// Resolves every original once; safe to call again and from any hook that comes before the constructor.
void resolve_originals();

// ---- this process -----------------------------------------------------------------------------------------------------

struct Self {
  bool ready;        // the constructor ran
  bool attached;     // a valid segment is mapped
  i32 pid;           // as of the constructor or the last fork; differs in a vfork child, whose tables are its parent's
  u64 process;       // pid and start time, as bindings know it
  Segment segment;
  u32 held;          // units held back anywhere in this process
  u32 linked;        // 1 once a flow of this process is linked
  bool scripted;     // a script is asked (scripts.cpp)
  bool counted;      // the kernel watches: every byte is accounted for (contract/flow.h)
  u32 marked_lookups;  // 1: getaddrinfo's flags may name the policy of a look-up (inside.cpp)
  char lineage[40];
  char courier_path[108];
};
extern Self self;

// What numbers a thread: its path of creation, and how many children and flows of each kind it made.
struct Thread {
  char path[40];
  u32 children;
  u16 flows[engine::kFlowKinds];
  bool named;
  bool inside;  // in one of our slow paths
  i32 tid;
  u32 legacy;   // 1 + the policy that setpriority set for it; 0 none
  u32 entered;  // 1 + the policy that sockets opened now are bound to; 0 none
};
extern thread_local constinit Thread thread;
void name_thread();
i32 thread_id();
inline Caller caller() { return {self.process, thread_id()}; }
// Whether a process carries the interceptor under this segment.
bool in_project(i32 pid);
const char* segment_path();
// Memory for this thread's copies of rows, until it ends: it meets more policies than it keeps by itself.
void keep_rows();
u64 now_ns();
u64 coarse_now_ns();  // a few milliseconds behind at most, for a tenth of the cost

inline bool active() { return self.attached && in_force(self.segment); }
inline void count(Fallback reason) {
  if (self.attached) count_fallback(self.segment, reason);
}

// Whether a call on this descriptor concerns us, asked without touching what a slow path may be at (sockets.cpp).
bool may_be_ours(int fd);

// In scope for a slow path: false inside itself or in a signal handler that interrupted one, which counts where the call's
// descriptor is one of ours. Keeps errno.
class Guard {
 public:
  Guard() : entered_(!thread.inside) {
    if (entered_) thread.inside = true;
    else count(Fallback::Reentered);
  }
  explicit Guard(int fd) : entered_(!thread.inside) {
    if (entered_) thread.inside = true;
    else if (may_be_ours(fd)) count(Fallback::Reentered);
  }
  ~Guard() {
    if (entered_) thread.inside = false;
  }
  explicit operator bool() const { return entered_; }
  Guard(const Guard&) = delete;

 private:
  bool entered_;
};

// ---- descriptors and sockets ------------------------------------------------------------------------------------------

constexpr u32 kDescriptors = 1u << 20;
enum class Kind : u8 { Unknown, Foreign, Socket, Private };
extern u8 kinds[kDescriptors];

inline bool is_foreign(int fd) { return static_cast<u32>(fd) < kDescriptors && kinds[fd] == static_cast<u8>(Kind::Foreign); }

// A unit held back so that others overtake it, or a copy waiting to be received.
struct Held {
  Held* next;
  u64 size;       // of the mapping
  u64 bytes;
  u64 since_ns, due_ns;  // due 0: no time bound
  u64 delay_ns;   // uplink: the delay that it meets once it goes
  u32 window;     // units that may still overtake
  u32 overtaken;
  bool ripe;      // its turn was noticed
  u32 copies;     // extra ones that go with it
  u32 address_length;
  sockaddr_storage address;
  u8 data[];
};

// What this process knows of one of its sockets; shared by the descriptors that dup made of it. What every call looks at
// comes first.
struct Arrivals;
struct Registration;
// A connect that the program did not wait for, until it may see what came of it.
struct Connecting {
  bool under_way;
  i32 error;         // what comes of it without a real attempt, or instead of one; 0 the attempt decides
  Fault fault;       // on whose account
  u64 since_ns;
  u64 leaves_ns;     // when the attempt does
  u64 due_ns;        // when that comes; 0: not decided yet, the answer being on its way
  u64 answered_ns;   // when the real answer was there
  u64 answer_ns;     // how long its way back takes
  u64 limit_ns;      // timeout.connect; 0 none
};
struct Socket {
  Flow* flow;
  Held* held[kDirections];
  u32 generation;          // of the header when `policy` was resolved
  u32 calm_generation;     // of the header when nothing was asked of this socket, whoever its peer; 0 never
  u32 quiet_generation;    // the same, where every byte is counted: then no socket is calm
  u32 settled_generation;  // of the header when its policy was known and no name could change that any more; 0 never
  i32 policy;              // mirrors flow->policy
  i32 claimed;             // 2 + the policy that the kernel knows of this flow; 0: it was told of none
  bool watched;            // the kernel had a row for it then
  i32 error_behind;        // the connection broke behind the bytes last handed over: what the next receive meets
  u8 family;               // AF_*
  u8 protocol;             // Protocol
  bool stream;
  bool linked;             // what arrives is dated, and seen when it is due
  engine::Wants wants;     // of that policy
  Arrivals* arrivals;      // of a linked flow
  Registration* registrations;  // in epoll sets
  u32 refused;             // sends of which not everything was taken: what a writable edge waits behind
  Connecting connecting;   // a connect that did not block
  i32 receive_buffer;      // what getsockopt shows of SO_RCVBUF, which a link widened; 0 it did not
  u32 low_water;           // SO_RCVLOWAT, where the program set it
  u32 send_buffer;         // what the program set with SO_SNDBUF: what its line holds; 0 it did not
  u64 cookie;
  u64 routed;              // hash of the last destination that a datagram could be sent to
  u32 refs;
  u16 local_port;
  i32 bound_policy;    // by name, when it was opened; -1 none
  Caller owner;        // whose thread's binding holds for it
  bool accepted;       // here: it belongs to whose listener it came from
  bool by_caller;      // nothing is bound to either: it follows the thread that uses it, when last resolved `resolved_for`
  i32 resolved_for;
  bool listening, wants_sni, program_stamps, stamped, resolver;
  bool shut;           // its FIN is on the line: nothing may be sent any more
  bool ended;          // the last connect failed: a further one is a new conversation
  u32 busy;            // guards the held lists
  u32 sni_bytes;
  char path[108];      // unix: the peer's
  char sni[128];
  char identity[88];   // the flow's, in words
  u8* hello;           // the first bytes sent, while a ClientHello is incomplete
};

struct Endpoint {
  u8 address[16];
  u16 port;
  bool known;
};
bool endpoint_of(const sockaddr* address, socklen_t length, Endpoint* out);

// Descriptor -> Socket, in pages mapped at first use: a program with few sockets maps one.
constexpr u32 kDescriptorsPerPage = 1024;
extern Socket** pages[kDescriptors / kDescriptorsPerPage];

// The socket noted for a descriptor, if any.
inline Socket* noted_socket(int fd) {
  if (static_cast<u32>(fd) >= kDescriptors) return nullptr;
  Socket** page = load_acquire(&pages[static_cast<u32>(fd) / kDescriptorsPerPage]);
  return page ? load_acquire(&page[static_cast<u32>(fd) % kDescriptorsPerPage]) : nullptr;
}
// The flow behind a descriptor when nothing is asked of it; nullptr: look closer.
inline Flow* calm_flow(int fd) {
  Socket* socket = noted_socket(fd);
  return socket && socket->calm_generation == load(&self.segment.header->generation) ? socket->flow : nullptr;
}
// Where the kernel watches: whether the socket was closed by a system call that we did not see, and the descriptor is another's.
const KernelSocket* kernel_socket(u64 cookie);  // kernel.cpp
inline bool closed_behind_us(const Socket& socket) { return socket.watched && !kernel_socket(socket.cookie); }
// The same where every byte is counted.
inline Flow* quiet_flow(int fd) {
  Socket* socket = self.counted ? noted_socket(fd) : nullptr;
  if (!socket || socket->quiet_generation != load(&self.segment.header->generation) || closed_behind_us(*socket)) return nullptr;
  return socket->flow;
}
// The socket behind a descriptor when its policy is settled and in force and it has no past to see to: nothing held, nothing
// broken. Then a call that no stage touches needs no closer look; nullptr: it does.
inline Socket* settled_socket(int fd) {
  Socket* socket = noted_socket(fd);
  if (!socket || socket->settled_generation != load(&self.segment.header->generation)) return nullptr;
  if (self.counted && closed_behind_us(*socket)) return nullptr;
  if (socket->held[0] || socket->held[1] || thread.inside || !in_force(self.segment)) return nullptr;
  return load(&socket->flow->state) == static_cast<u8>(FlowState::Open) ? socket : nullptr;
}
inline void count_op(FlowDirection* direction) { store(&direction->ops, load(&direction->ops) + 1); }

// ---- accounts: what a program's calls moved, and why the kernel's moved more or less (contract/flow.h) -------------------

// A call of the program's moved this much.
inline void count_called(Flow* flow, Direction direction, i64 bytes) {
  if (self.counted && flow && bytes > 0) add(&side_of(flow, direction)->called, static_cast<u64>(bytes));
}
// The same for a call that went straight to libc; its ops are counted too, as on a calm socket.
void count_straight(int fd, Direction direction, i64 bytes);
inline void account_for(Socket* socket, Direction direction, Account reason, u64 bytes) {
  if (self.counted && socket->flow) account(self.segment, socket->flow, direction, reason, bytes);
}
// Where payload is recorded: what an op of the program's carried, as it gave or got it (sockets.cpp).
void record_payload(const Socket& socket, OpKind kind, const iovec* parts, int count, i64 bytes);
// What one call carries was made longer or shorter.
inline void account_for_change(Socket* socket, Direction direction, u64 before, u64 after) {
  if (after > before) account_for(socket, direction, Account::Injected, after - before);
  else account_for(socket, direction, Account::Cut, before - after);
}
// More is held back (or, negative, less) for reordering, or as a copy to be received.
inline void count_held(Socket* socket, Direction direction, i64 bytes) {
  if (self.counted && socket->flow) add(&side_of(socket->flow, direction)->held, static_cast<u64>(bytes));
}

// ---- the kernel's side, kernel.cpp ---------------------------------------------------------------------------------------

// Maps the kernel's table of sockets, handed out at `path`; false: there is none to be had.
bool meet_kernel(const char* path);
// The row of a socket, which may be another's a moment later; nullptr: the kernel's side knows none. The rest copies out of it.
bool kernel_owner(u64 cookie, Owner* out);
// Whether a socket's connection went to the relay.
bool carried_by_relay(u64 cookie);
// The newest arrivals, oldest first: how many.
constexpr u32 kKernelArrivals = MISHAP_KERNEL_ARRIVALS - 1;
u32 kernel_arrivals(u64 cookie, KernelArrival out[kKernelArrivals]);
// Bytes that a stream received since it began, those queued included.
bool stream_received(int fd, u64* bytes);
// Tells the kernel that this flow is carried here, and by which policy, unless it knows.
void claim_flow(int fd, Socket* socket);
void claim_listener(int fd);  // what comes in there is accepted here
// Tells the kernel that the program sent, while nothing of this flow was on its way: what it sent leaves later.
void tell_call(int fd);

// Our socket behind a descriptor, or nullptr. Looks at an unknown descriptor once.
Socket* socket_of(int fd);
// A descriptor that was just created as, or turned into, one of ours or not.
void note_socket(int fd, int family, int type);
void note_copy(int from, int to);
void forget(int fd);
// Before a fault is applied: is fd still this socket? If not the entry is dropped and the call passes through.
bool still_ours(int fd, Socket* socket);
void drop_inherited_holds();

// The flow of a socket and its policy, opened at first need; false: unfaulted. `to`: where a datagram goes.
bool faulted(int fd, Socket* socket, const sockaddr* to, socklen_t length);
bool is_faulted(int fd);  // the same for a descriptor, outside of any slow path
// A connecting socket: a new conversation towards `to`, published before the real connect.
void open_connecting(int fd, Socket* socket, const sockaddr* to, socklen_t length);
void open_accepted(int fd, int listener);
void note_local(int fd, Socket* socket);
// Whether the sender of a datagram is a socket of this project, which carried the faults itself.
bool sender_inside(int fd, Socket* socket, const sockaddr* from, socklen_t length);
void learn_sni(int fd, Socket* socket, const iovec* parts, int count);
void stamp_arrivals(int fd, Socket* socket);

// The kernel's name of a socket for as long as the machine is up; 0 none.
u64 cookie_of(int fd);
// inet_diag (unprivileged): the cookie of the socket whose local end is `local` and whose peer is `peer`; 0 none.
u64 cookie_by_tuple(Protocol protocol, const Endpoint& local, const Endpoint& peer);

// Where the flags of getaddrinfo carry 1 + the policy of a look-up, in programs that know of mishap: the thread that looks a
// name up may not be the one that asked (libuv's pool). The C library's own flags end at bit 10.
constexpr int kLookupPolicyShift = 16;

// Host names learned from answers.
void learn_name(const u8 address[16], const char* host);
bool name_of(const u8 address[16], char* host, u32 capacity);

// ---- the run's script, scripts.cpp: asked before a decision, and waited for no longer than the segment says ---------------

// Maps the mailbox, before main: later the program may be another user, or jailed.
void meet_script();
// About a flow whose policy is settled, once.
void ask_about_flow(Socket* socket);
// About an op, unless what was answered before stands. `ahead`: bytes that arrived before these and were not received yet.
void ask_about_op(Socket* socket, OpKind kind, Direction direction, u64 ahead, u64 bytes);
void ask_about_lookup(Flow* flow, const char* words, const char* host);

// ---- links: what the program may see of a delayed flow ------------------------------------------------------------------

// A flow is linked when the kernel's readiness is not the program's: what arrived is not due yet, or the line out is full.
// What the program may see of it now, and what would change that.
struct Sight {
  short events;   // of POLLIN, POLLOUT, POLLPRI, POLLRDHUP, POLLHUP, POLLERR: to be seen now
  short ask;      // what to ask the kernel for, to learn of a change; 0: it can tell nothing new, leave the descriptor out
  u64 due_ns;     // when `events` changes by itself; 0: it does not
  u64 in_mark;    // grows when more is to be read, the end and an error included: what a readable edge is
};
// The linked socket behind a descriptor; nullptr: the kernel's readiness holds.
Socket* find_linked(int fd);
inline Socket* linked_socket(int fd) { return fd < 0 || is_foreign(fd) ? nullptr : find_linked(fd); }
// Looks, and dates what arrived since the last look. `waiting`: the program has been waiting for it in this very call.
Sight look(int fd, Socket* socket, bool waiting);
// Goes on with a connect under way: what the program may see of it.
Sight look_at_connect(int fd, Socket* socket, short kernel, bool waiting, u64 now);
// What came of a connect, once, for SO_ERROR and the program's next call; 0 nothing.
i32 take_connect_error(Socket* socket);
short kernel_events(int fd);
// Starts and ends a socket's link, and frees what it took.
void begin_link(int fd, Socket* socket);
void end_link(Socket* socket);
void free_link(Socket* socket);
void widen(int fd, Socket* socket);
struct Incoming;
// Lets a receive on a linked socket go on once something is due: true and how many bytes may be received at most, or false
// with errno: nothing yet, a signal, or the connection's error.
bool await_arrival(const Incoming& in, Socket* socket, u64* bytes);
// The program received: when that had arrived, and when it could first be seen if it had been withheld (else 0).
void note_taken(Socket* socket, u64 bytes, u64* at_ns, u64* seen_ns);
// The program itself ended this direction: nothing of its end waits.
void end_arrivals(Socket* socket);
// Whether the connection has an error that the program must not see yet.
bool error_withheld(int fd, Socket* socket);
u64 monotonic_of(const timespec& stamp);
// A standard descriptor may have become a faulted socket: its stream follows.
void adopt_standard_stream(int fd);
// What poll shows of a linked flow's queue: the bytes that may be received now.
u64 visible_bytes(int fd, Socket* socket);
// epoll.cpp: the socket's registrations follow its link; those of a descriptor end (`open`: it has not closed yet).
void relink(Socket* socket);
void leave_epoll(int fd, Socket* socket, bool open);
// A descriptor means the same epoll set as another; it means none any more.
void copy_epoll(int from, int to);
void forget_epoll(int fd);
// Around a fork, so that the child finds the tables whole.
void lock_epoll();
void unlock_epoll();
void keep_epoll_after_fork();

// ---- carrying out -----------------------------------------------------------------------------------------------------

// Lines out, line.cpp. What a line carries is put on it in order; false or 0: it could not be, and nothing was.
struct Outgoing;
bool can_line(const Outgoing& out, const Socket& socket);
// How many bytes were put there.
u64 put_on_line(const Outgoing& out, Socket* socket, u64 skip, u64 bytes, const engine::Decision& d, u64 now);
bool mark_on_line(int fd, Socket* socket, link::ParcelKind kind, u32 value);
bool connect_on_line(int fd, Socket* socket, const sockaddr* to, socklen_t length, const engine::Decision& d, u64 now);
// Shorter delays are met better inside the call than by the courier.
constexpr u64 kShortestNs = 50000;
// Whether the kernel refuses a connect or a datagram at once: no way there, no destination, too long, an earlier one's error.
bool no_way_to(int fd, int family, const sockaddr* to, socklen_t length);
bool fails_at_once(const Outgoing& out, Socket* socket);
bool line_busy(const Socket& socket);
bool line_has_room(const Socket& socket);
u64 room_on_line(const Socket& socket);
bool await_room(int fd, Socket* socket, u64 bytes);
void drain_line(Socket* socket);
bool courier_lost(Socket* socket);
void cut_if_lost(int fd, Socket* socket);
i32 take_line_error(Socket* socket);
// Connects to the courier where a policy may need it, before main: later the program may be another user, or jailed.
void meet_courier();
// Descriptors of our own, out of the program's way: it can neither close nor overwrite them unawares.
int make_private(int fd);
void close_private(int fd);
inline bool is_private(int fd) { return static_cast<u32>(fd) < kDescriptors && load(&kinds[fd]) == static_cast<u8>(Kind::Private); }

// Lets time pass until due_ns (CLOCK_MONOTONIC), or until faults end. Returns the clock as it then stands.
u64 wait_until(u64 due_ns);

// A timer of ours that expires at due_ns, exactly, for a wait on descriptors; -1 none is to be had. And giving it back.
int borrow_timer(u64 due_ns);
void return_timer(int fd);
void drop_inherited_timers();

bool is_nonblocking(int fd, int flags);
bool ready_now(int fd, short events);
// Ends the connection as an arriving RST does, both ends seeing it, and returns the errno for this call.
int break_connection(int fd, Socket* socket, ErrorKind kind);
int errno_of(ErrorKind kind);

struct Outgoing {
  int fd;
  const iovec* parts;
  int count;
  u64 total;
  int flags;
  const void* to;
  socklen_t to_length;
  const void* control;
  size_t control_length;
  bool whole;  // all or nothing: the source cannot be put back (splice, sendfile)
};
using RealSend = ssize_t (*)(const void* arguments);
ssize_t send_through(const Outgoing& out, RealSend original, const void* arguments);

struct Incoming {
  int fd;
  const iovec* parts;
  int count;
  u64 total;
  int flags;
  msghdr* message;  // recvmsg's own, where names and control go; or nullptr
  sockaddr* from;
  socklen_t* from_length;
};
using RealReceive = ssize_t (*)(const void* arguments);
ssize_t receive_through(const Incoming& in, RealReceive original, const void* arguments);

// Guards a socket's held lists; only taken while a fault is being applied.
class Lists {
 public:
  explicit Lists(Socket* socket);
  ~Lists();
  Lists(const Lists&) = delete;

 private:
  Socket* socket_;
};

// Whether another unit may be held: at most as many wait as may overtake one, else nothing would be left to overtake them.
bool may_hold(Socket* socket, Direction direction, u32 window);
// Held units whose time has come, or all of them.
void release_held(int fd, Socket* socket, bool all);
void release_everything();
Held* make_held(const iovec* parts, int count, u64 skip, u64 bytes);
void free_held(Held* held);

inline u64 length_of(const iovec* parts, int count) {
  u64 total = 0;
  for (int i = 0; i < count; i++) total += parts[i].iov_len;
  return total;
}
// What the first `count` messages carried; -1 when there are none.
inline i64 bytes_of(const mmsghdr* messages, int count) {
  i64 total = count < 0 ? -1 : 0;
  for (int i = 0; i < count; i++) total += messages[i].msg_len;
  return total;
}
// parts[skip, skip + bytes) as a list of its own; returns how many entries, at most `capacity` (then *bytes shrinks).
int cut_parts(const iovec* parts, int count, u64 skip, u64* bytes, iovec* out, int capacity);
void gather(const iovec* parts, int count, u64 skip, u8* to, u64 bytes);
void scatter(const u8* from, u64 bytes, const iovec* parts, int count);

// Memory for a fault being applied: mapped, so that nothing of the program's allocator is touched. nullptr: none.
u8* map_buffer(u64 size);
void unmap_buffer(u8* buffer, u64 size);

namespace slow {
#define FD(result, name, params, args) result name params;
#define ALL(result, name, params, args) result name params;
#include "hooks.def"
#undef FD
#undef ALL
}  // namespace slow

}  // namespace mishap
