// The segment's first page: who made it, whether it is in force, and where each region lies.
#pragma once

#include "fields.h"

namespace mishap {

enum class Region : u32 { Rows, Targets, Bindings, Processes, Owners, Flows, Links, Stats, Histograms, Journal, Decided, Count };
constexpr u32 kRegions = static_cast<u32>(Region::Count);

// What interceptors count when something is wrong and a call passes through unfaulted.
enum class Fallback : u32 {
  BadSegment,      // magic, version, hash, size or owner did not check out
  RowBusy,         // a row was being written through every retry
  BadIndex,        // an index read from memory lay outside its region
  TableFull,       // no free slot for a flow, owner, binding or process
  StaleDescriptor, // an fd number was reused behind our back
  Reentered,       // a call from a signal handler or from inside ourselves
  NoMemory,        // a buffer for held bytes could not be had
  NoCourier,       // the line out could not be used: its delays were waited for inside the call
  Unsupported,     // a fault that this call cannot carry (named in docs/limits.md)
  Count
};
constexpr u32 kFallbacks = static_cast<u32>(Fallback::Count);

constexpr u32 kHeaderJournal = 1;  // write decisions to the journal
constexpr u32 kHeaderUnix = 2;     // some target says unix://
constexpr u32 kHeaderNames = 4;    // some target needs host names
constexpr u32 kHeaderThreads = 8;  // some thread has a binding of its own
constexpr u32 kHeaderLegacy = 16;  // programs may set faults by setpriority
constexpr u32 kHeaderKernel = 32;  // the kernel's side is at work: SEGMENT.kernel hands out its rows
constexpr u32 kHeaderRecord = 64;  // the journal is recorded: its writers wait for room
constexpr u32 kHeaderRecordAll = 128;  // ops that continued are journalled too
constexpr u32 kHeaderDecided = 256;    // nothing is drawn: what happens is in the region of decisions
constexpr u32 kHeaderPortless = 512;   // ports that pass, of peers on this host, are no part of a flow's identity
constexpr u32 kHeaderRecordPayload = 1024;  // what ops carried is journalled, byte for byte
constexpr u32 kHeaderScript = 2048;         // a script is asked: its mailbox is at SEGMENT.mailbox

#define MISHAP_REGION_ENTRY(FIELD, ARRAY)             \
  FIELD(u64, offset, "bytes from the start of the segment") \
  FIELD(u32, count, "rows")                           \
  FIELD(u32, stride, "bytes a row")
MISHAP_STRUCT(RegionEntry, 16, "Where a region lies.", MISHAP_REGION_ENTRY)

#define MISHAP_HEADER(FIELD, ARRAY)                                                                     \
  FIELD(u64, magic, "0x0050414853494d01")                                                               \
  FIELD(u32, abi_version, "1")                                                                          \
  FIELD(u32, state, "1 active, 2 paused, 3 retired; a futex: waits end when it changes")                \
  FIELD(u64, layout_hash, "hash of the whole layout; differs, fall back")                               \
  FIELD(u64, total_size, "bytes of the segment, all reserved")                                          \
  ARRAY(u64, owner_lock, 5, "robust pthread mutex held by the owner's lease thread; its death is visible at once") \
  FIELD(i32, owner_pid, "the run's process")                                                            \
  FIELD(i32, default_policy, "the project's binding: a policy index, or -1")                            \
  FIELD(u64, owner_start, "start time of the owner, clock ticks since boot (proc(5), stat field 22)")   \
  FIELD(u64, lease_expiry_ns, "CLOCK_MONOTONIC; past it every call passes through")                     \
  FIELD(u64, epoch_ns, "CLOCK_MONOTONIC; the origin of schedules")                                      \
  FIELD(u32, generation, "changes with every policy, target or binding; resolved flows look again")     \
  FIELD(u32, flags, "1 journal on, 2 unix sockets in force, 4 host names needed, 8 threads have bindings, 16 faults by setpriority, 32 the kernel watches, 64 writers wait for room in the journal, 128 ops that continued are in it, 256 nothing is drawn, what happens was decided, 512 passing ports are no part of identities, 1024 payload is in the journal, 2048 a script is asked") \
  FIELD(u64, run_seed, "the seed of the run; rows without one of their own use it")                     \
  FIELD(u64, flows_opened, "flows seen since the start")                                                \
  FIELD(u64, folded_ops, "ops of flows whose slot was reused")                                          \
  FIELD(u64, journal_head, "next position to write")                                                    \
  FIELD(u64, journal_tail, "next position to read")                                                     \
  FIELD(u64, journal_dropped, "events lost because the ring was full")                                  \
  FIELD(u64, journal_stalled, "where a writer gave up waiting: journal_tail + 1; until that moves nobody waits") \
  FIELD(u64, determinism, "bits: 1 two ops of one flow raced, 2 a conversation turned under way, 4 a thread or process could not be numbered") \
  FIELD(u64, io_uring_denied, "io_uring_setup calls answered ENOSYS")                                   \
  ARRAY(u64, fallbacks, 9, "calls passed through, by reason")                                           \
  FIELD(i32, courier_pid, "the process that holds the lines out; 0 none")                               \
  FIELD(u32, histograms_used, "rows of that region given to policies")                                  \
  FIELD(u64, script_patience_ns, "how long a program waits for a script's answer")                      \
  FIELD(u64, script_asked, "questions that a script was asked")                                         \
  FIELD(u64, script_late, "of these, not answered in time")                                             \
  FIELD(u64, script_unserved, "questions that nobody was there to answer, so that they were not asked") \
  ARRAY(u64, reserved, 13, "zero")                                                                      \
  ARRAY(RegionEntry, regions, 11, "rows, targets, bindings, processes, owners, flows, links, stats, histograms, journal, decided")
MISHAP_STRUCT(Header, 576, "The segment's first bytes.", MISHAP_HEADER)
static_assert(kRegions == 11 && kFallbacks == 9);

}  // namespace mishap
