// What the kernel's side writes and everybody else only reads: one row a socket of the run, in a frozen BPF map, keyed by
// cookie. bpf/*.bpf.c is C, so the field lists stand here as macros that both languages turn into the same struct; the
// numbers that both use are macros too.
#pragma once

// ---- what a program in the run's cgroup may say of one of its sockets: setsockopt(fd, kKernelLevel, option, value) ----

#define MISHAP_KERNEL_LEVEL 0x6d697368  // no protocol's: without the kernel's side the call fails with ENOPROTOOPT
#define MISHAP_KERNEL_CLAIM 1           // KernelClaim: the interceptor carries this flow
#define MISHAP_KERNEL_CALL 2            // no value: the program sent, and what it sent will leave with the next real send

// ---- the rows ---------------------------------------------------------------------------------------------------------

#define MISHAP_KERNEL_SOCKETS 65536     // rows: sockets open at once
#define MISHAP_KERNEL_WINDOW 32         // rows looked at for one cookie, from its hash on
#define MISHAP_KERNEL_ARRIVALS 8        // the newest arrivals of a flow that are kept
#define MISHAP_KERNEL_ROW(cookie) (((cookie) * 0x9e3779b97f4a7c15ull) >> 48)  // where a cookie's window begins; it wraps

#define MISHAP_SOCKET_CLAIMED 1         // KernelSocket::flags
#define MISHAP_SOCKET_ACCEPTED 2        // taken by accept: the owner is who took it, not who made the listener
#define MISHAP_SOCKET_LISTENING 4
#define MISHAP_SOCKET_RESET 8           // ended by a RST, sent or received
#define MISHAP_SOCKET_RELAYED 16        // its connection, or what it sends, was handed to the relay (contract/relay.h)
#define MISHAP_SOCKET_KNOWN_BY_PORT 32  // a datagram socket whose port its program chose: peers may know it by that

#define MISHAP_OWNER(FIELD, ARRAY)                                                      \
  FIELD(u64, cookie, "socket cookie; 0 free")                                           \
  FIELD(u64, process, "process that created it: pid << 32 | low half of its start time") \
  FIELD(i32, pid, "process that created it")                                            \
  FIELD(i32, tid, "thread that created it; 0 nobody: it belongs to whoever uses it")    \
  FIELD(i32, fd, "descriptor at creation, -1 unknown")                                  \
  FIELD(i32, bound_policy, "policy bound to the socket by name, or -1")                 \
  FIELD(u32, source, "1 interceptor, 2 kernel")                                         \
  FIELD(u32, role, "Role")                                                              \
  FIELD(u64, created_ns, "CLOCK_MONOTONIC")                                             \
  FIELD(u64, cgroup, "cgroup id where the kernel said it, else 0")

#define MISHAP_KERNEL_CLAIM_FIELDS(FIELD, ARRAY)                                        \
  FIELD(i32, policy, "that the flow resolved to, or -1")                                \
  FIELD(u32, reserved, "zero")

// A row is written by whoever has the socket's lock in the kernel or is closing it; readers bear with what is half new.
#define MISHAP_KERNEL_ARRIVAL(FIELD, ARRAY)                                             \
  FIELD(u64, end, "bytes of the stream up to and with this arrival")                    \
  FIELD(u64, at_ns, "CLOCK_MONOTONIC")
#define MISHAP_KERNEL_SOCKET(FIELD, ARRAY)                                              \
  FIELD(Owner, owner, "whose it is; its cookie is the row's key")                       \
  ARRAY(char, program, 16, "name of the owning thread, as in /proc/PID/comm")           \
  ARRAY(u8, local, 16, "IPv6 or mapped IPv4")                                           \
  ARRAY(u8, peer, 16, "IPv6 or mapped IPv4")                                            \
  FIELD(u16, local_port, "host byte order")                                             \
  FIELD(u16, peer_port, "host byte order")                                              \
  FIELD(u8, family, "AF_INET or AF_INET6")                                              \
  FIELD(u8, protocol, "Protocol")                                                       \
  FIELD(u8, tcp_state, "TCP_* of the kernel; 0 not TCP")                                \
  FIELD(u8, fin, "1: the peer's end was received")                                      \
  FIELD(u32, flags, "MISHAP_SOCKET_*")                                                  \
  FIELD(i32, policy, "of the last claim, or -1")                                        \
  ARRAY(u64, bytes, 2, "that calls moved, by direction; without those only looked at (MSG_PEEK)") \
  ARRAY(u64, ops, 2, "calls that moved something: for UDP, datagrams")                  \
  ARRAY(u64, since_ns, 2, "uplink: when the program called; downlink: when what is unread arrived; 0 nothing waits") \
  FIELD(u32, srtt_us, "smoothed round trip")                                            \
  FIELD(u32, retransmits, "segments sent again")                                        \
  FIELD(u32, resets, "RSTs sent and received")                                          \
  FIELD(u32, failures, "sends that failed")                                             \
  FIELD(u64, arrivals_count, "arrivals so far; the newest is at (count - 1) % 8")       \
  ARRAY(KernelArrival, arrivals, 8, "the newest, where arrivals are watched")

// ---- what the kernel's side tells the loader, through a ring buffer ----------------------------------------------------

#define MISHAP_EVENT_CLOSED 1           // a KernelSocket, as it was at its close
#define MISHAP_EVENT_DELAY 2            // a KernelDelay

#define MISHAP_KERNEL_DELAY_FIELDS(FIELD, ARRAY)                                        \
  FIELD(i32, policy, "of the flow's claim")                                             \
  FIELD(u32, direction, "Direction")                                                    \
  FIELD(u64, delay_ns, "uplink: from the program's call to its bytes' leaving; downlink: from arrival to the program's receiving")

#ifdef __cplusplus
#include "fields.h"

namespace mishap {

MISHAP_STRUCT(Owner, 56, "Who owns a socket.", MISHAP_OWNER)
MISHAP_STRUCT(KernelClaim, 8, "What the interceptor says of a flow that it carries.", MISHAP_KERNEL_CLAIM_FIELDS)
MISHAP_STRUCT(KernelArrival, 16, "Bytes that arrived.", MISHAP_KERNEL_ARRIVAL)
MISHAP_STRUCT(KernelSocket, 320, "A socket as the kernel saw it.", MISHAP_KERNEL_SOCKET)
MISHAP_STRUCT(KernelDelay, 16, "One delay as the kernel saw it.", MISHAP_KERNEL_DELAY_FIELDS)

// What the loader says first to whoever connects to SEGMENT.kernel (SOCK_SEQPACKET), with the map's descriptor beside it.
struct KernelHello {
  u64 magic;  // kMagic
  u32 rows, row_bytes;
};

}  // namespace mishap
#endif
