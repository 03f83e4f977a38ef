// A project's segment, opened and walked. Everything that reads or writes shared memory goes through here,
// whoever it is: the interceptor, the addon, a test. Nothing in this folder decides about faults.
//
// Rule: shared memory is never trusted. Region offsets and sizes are checked once at attach() and kept in
// private memory; an index is checked on every access; a row is copied out under its sequence lock. All of it is
// allocation-free, lock-free and async-signal-safe, except format(), which only the owner calls.
#pragma once

#include <linux/futex.h>

#include "atomic.h"
#include "contract/layout.h"

namespace mishap {

struct Capacities {
  u32 policies, bindings, processes, owners, flows, events, histograms, decided;
};

struct Segment {
  u8* base = nullptr;
  u64 size = 0;
  Header* header = nullptr;
  Row* rows = nullptr;
  Target* targets = nullptr;
  Binding* bindings = nullptr;
  Process* processes = nullptr;
  Owner* owners = nullptr;
  Flow* flows = nullptr;
  Link* links = nullptr;
  Stats* stats = nullptr;
  Histogram* histograms = nullptr;
  Event* events = nullptr;
  const Decided* decided = nullptr;
  const Row* answers = nullptr;  // kAnswers rows, of the mailbox, where a script is asked
  Capacities count = {};
};

enum class AttachError : u32 { None, Missing, Foreign, Truncated, BadMagic, BadVersion, BadLayout, BadRegion, NoMap };
const char* describe(AttachError error);

// Bytes a segment of these capacities needs.
u64 segment_size(const Capacities& capacities);
// Writes a fresh header and region table over zeroed memory of segment_size() bytes. State is Paused until the owner activates it.
void format(u8* base, u64 size, const Capacities& capacities);
// Checks memory that claims to be a segment and fills in *out. Reads nothing outside [base, base + size).
AttachError check(u8* base, u64 size, Segment* out);
// Opens, checks the owner and mode of, maps and checks a segment file. errno is kept.
AttachError attach(const char* path, Segment* out);
void detach(Segment* segment);

// In force: active, and its owner's robust lock is held by a living thread. Two loads, no clock.
inline bool in_force(const Segment& segment) {
  if (load(&segment.header->state) != static_cast<u32>(State::Active)) return false;
  // The first word of a pthread mutex is its futex: the owner's tid, or FUTEX_OWNER_DIED once the kernel found it dead.
  u32 lock = load(reinterpret_cast<const u32*>(segment.header->owner_lock));
  return (lock & FUTEX_TID_MASK) && !(lock & FUTEX_OWNER_DIED);
}
// The lease too: false when the owner has not renewed it. For moments when a fault is about to be applied.
bool lease_holds(const Segment& segment, u64 now_ns);

void count_fallback(const Segment& segment, Fallback reason);

// Copies a row out under its sequence lock; false when the index is out of range, the row was never written, or it
// was being written through every retry (counted).
bool read_row(const Segment& segment, i32 policy, Row* out);
// The same of a row wherever it lies.
bool copy_row(const Segment& segment, const Row* row, Row* out);
inline bool is_policy(const Segment& segment, i32 policy) { return static_cast<u32>(policy) < segment.count.policies; }
inline u32 row_sequence(const Segment& segment, i32 policy) {
  return is_policy(segment, policy) ? load_acquire(&segment.rows[policy].seq) : 0;
}
// One target rule; `sequence` is the row's, from before the first rule was read. False when it changed meanwhile.
bool read_target(const Segment& segment, i32 policy, u32 rule, u32 sequence, Target* out);
// The holder's side: publishes a row with its rules, then lets resolved flows look again.
bool publish_row(const Segment& segment, u32 policy, const Row& row, const Target* rules, u32 rule_count);
// Whether a policy is published and not withdrawn.
bool in_use(const Segment& segment, i32 policy);
// Takes a published policy out of force, or back into it.
void set_withdrawn(const Segment& segment, u32 policy, bool withdrawn);
// Holds a slot for a process, from `from` on: one never used, else one given back or left by a process that died, whose
// counters then go to the last slot, which is nobody's: what earlier policies did. -1: all are held.
i32 claim_policy(const Segment& segment, u64 process, u32 from);
void release_policy(const Segment& segment, u32 policy, u64 process);

// A process in rows, bindings and flows: its start time makes sure that a reused pid is nobody's.
constexpr u64 process_key(i32 pid, u64 start) { return static_cast<u64>(static_cast<u32>(pid)) << 32 | static_cast<u32>(start); }
constexpr i32 pid_of(u64 process) { return static_cast<i32>(process >> 32); }
struct Caller {
  u64 process;
  i32 tid;
};

// What a flow's slot is filled with when it is opened.
struct FlowOpening {
  u64 cookie, key, name_hash;
  Role role;
  Protocol protocol;
  u16 peer_port;
  u8 peer[16];
  u32 ordinal;
  i32 pid, bound_policy;
  Caller owner;
};
inline FlowDirection* side_of(Flow* flow, Direction direction) {
  return direction == Direction::Uplink ? &flow->up : &flow->down;
}
Flow* find_flow(const Segment& segment, u64 cookie);
// Finds the flow or opens one; *fresh says which. nullptr when its window is full (counted).
Flow* open_flow(const Segment& segment, const FlowOpening& opening, bool* fresh);
// Units that a flow's progress amounts to: a unit is drawn for when it begins, so a begun one counts.
constexpr u64 units_begun(u64 progress) { return (progress >> 11) + ((progress & 2047) ? 1 : 0); }
// Adds what the flow counted since the last fold to its policy's stats.
void fold_flow(const Segment& segment, Flow* flow);
// Enters bytes that became more or fewer between the program's calls and the kernel's, in the flow and in its policy's stats.
void account(const Segment& segment, Flow* flow, Direction direction, Account reason, u64 bytes);

Owner* find_owner(const Segment& segment, u64 cookie);
void publish_owner(const Segment& segment, const Owner& owner);
// Binds a socket to a policy by name (-1: to none), and to the thread that owns it; flows look again.
void bind_socket(const Segment& segment, u64 cookie, i32 fd, i32 policy, Caller owner, u64 now_ns);

// Whether something is bound to a thread (tid 0: to the whole process), and what: a policy in use, or -1 for none.
bool find_binding(const Segment& segment, Caller of, i32* policy);
// The policy bound to this thread, else to its process, else the project's; -1 none.
i32 bound_policy(const Segment& segment, Caller caller);
// Binds a policy, or with -1 none, to a thread or a process; kUnbound ends it. False: no room (counted).
bool bind(const Segment& segment, Caller to, i32 policy);

Process* register_process(const Segment& segment, i32 pid, u64 start, const char* lineage, const char* program, u64 now_ns);
Process* find_process(const Segment& segment, i32 pid, u64 start);

void count_verdict(const Segment& segment, i32 policy, Stage stage, Verdict verdict);
void count_applied(const Segment& segment, i32 policy, Fault fault, Direction direction, u64 times);
// Files a measured time in the fault's histogram; record_time also counts the fault applied.
void file_time(const Segment& segment, i32 policy, Fault fault, Direction direction, u64 delivered_ns, u64 asked_ns);
void record_time(const Segment& segment, i32 policy, Fault fault, Direction direction, u64 delivered_ns, u64 asked_ns);
inline Stats* stats_of(const Segment& segment, i32 policy) {
  return is_policy(segment, policy) ? &segment.stats[policy] : nullptr;
}
// Times of a fault, if any were filed. Histograms are large, and most policies delay few things in few ways, so each gets
// its row with the first time; nullptr from own_histogram when all are given.
Histogram* histogram_of(const Segment& segment, i32 policy, Fault fault, Direction direction);
Histogram* own_histogram(const Segment& segment, i32 policy, Fault fault, Direction direction);
inline Link* link_of(const Segment& segment, i32 policy, Direction direction) {
  if (!is_policy(segment, policy)) return nullptr;
  return &segment.links[static_cast<u32>(policy) * kDirections + static_cast<u32>(direction)];
}

// The longest that an op waits for room in the ring: as long as a lease lasts.
constexpr u64 kRoomPatienceNs = 2'000'000'000;
// False when the ring is full (counted). Where a recording is made that takes a wait for room, which ends with the faults or
// with the writer's patience; an op that writes several events hands in what is left of its own. The event's `turn` is set
// here, and `at_ns` where it is 0.
bool push_event(const Segment& segment, const Event& event, u64* patience_ns = nullptr);
// The one reader's side: the next event in order, or false. `patience` is how often an unpublished slot (its writer
// died or is slow) has been met in a row; past 100 it is skipped.
bool pop_event(const Segment& segment, Event* out, u32* patience);

}  // namespace mishap
