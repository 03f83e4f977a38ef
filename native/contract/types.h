// The contract: every struct that mishap's processes share through memory, defined once, here.
//
// This folder holds shapes and the checks on them, no behaviour. `types.h` has the words (integers and
// enums); one header a region has its rows; `layout.h` lists them all, with names, offsets, sizes and a
// hash, for the addon to export and docs/contract.md to print. TypeScript never holds an offset.
//
// Change rule: a layout change alters `layout.h`'s hash and fails the build until the hash, the writer
// (src/segment), its test and docs/contract.md have changed with it.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace mishap {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using i32 = int32_t;
using i64 = int64_t;

constexpr u64 kMagic = 0x0050414853494d01ull;  // "\1MISHAP\0" as bytes in memory
constexpr u32 kAbiVersion = 1;
constexpr u32 kMaxPolicies = 1536;  // slots: 1,024 policies of a file, and some for programs that register their own
constexpr u32 kTargetsPerPolicy = 16;
constexpr u32 kStreamUnitBytes = 1448;  // one full TCP segment with timestamps on Ethernet: the unit of chance
constexpr u32 kCertainPpm = 1000000;

enum class State : u32 { Active = 1, Paused = 2, Retired = 3 };

enum class OpKind : u8 { Connect, Send, Recv, Dns, Count };
enum class Direction : u8 { Uplink, Downlink, Count };
enum class Protocol : u8 { Any, Tcp, Udp, Unix, Dns };
enum class Role : u8 { Connector, Acceptor, Datagram, Resolver };

enum class Stage : u8 {
  Resolve,       // R0
  SessionGuard,  // R1
  ChaosBase,     // R2
  FlowControl,   // R3
  Timing,        // R4
  Transport,     // R5
  Resolver,      // R6
  Payload,       // R7
  PostRouting,   // R8
  Count
};

enum class Verdict : u8 { Continue, Delay, Drop, Timeout, Error, NxDomain, Mutate, Reorder, Duplicate, Skipped, Answered, Count };

// What a user asks for and evidence answers for. The first kTimedFaults take time and own a histogram.
enum class Fault : u8 {
  Latency, Jitter, PacketLoss, BurstLoss, CorrelatedLoss, Rate, ConnectTimeout, RecvTimeout, DnsDelay, DnsTimeout,
  SessionBudget, PacketReorder,
  ConnectionError, HalfOpen, PacketDuplicate, DnsNxdomain, PayloadMutation,
  Count
};
constexpr u32 kFaults = static_cast<u32>(Fault::Count);
constexpr u32 kTimedFaults = static_cast<u32>(Fault::ConnectionError);
constexpr u32 kDirections = static_cast<u32>(Direction::Count);
constexpr u32 kStages = static_cast<u32>(Stage::Count);
constexpr u32 kVerdicts = static_cast<u32>(Verdict::Count);

enum class LossMode : u8 { Retransmit, Drop };
enum class RateScope : u8 { Link, Flow };
enum class JitterDistribution : u8 { Uniform, Normal, Pareto };
enum class ErrorKind : u8 { Reset, Refused, Unreachable };
enum class BudgetAction : u8 { Drop, Timeout, ConnectionError };
enum class ScheduleKind : u8 { Always, Ramp, Spike, Flapping };
enum class MutationType : u8 { None, Truncate, CorruptBytes, InjectBytes, ReplacePattern, CorruptEncoding, SwapBytes };
enum class MutationTarget : u8 { Both, UplinkOnly, DownlinkOnly };
enum class NameKind : u8 { None, Hostname, Sni, UnixPath };

constexpr u32 bit(Fault f) { return 1u << static_cast<u32>(f); }

}  // namespace mishap
