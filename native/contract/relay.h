// What the kernel's redirection (bpf/redirect.bpf.c) and the relay (native/relay) share: one RelayControl, one RelayRow for
// each KernelSocket, both in BPF arrays that the relay maps, and what the kernel tells the relay of each connect, through a
// ring buffer of its own. C and C++ like kernel.h.
//
//   program: connect(10.0.0.1:80) ─▶ cgroup/connect: the row remembers 10.0.0.1:80; the SYN goes to the relay's port instead,
//                                    where a listener with no room drops it in silence
//                                 ─▶ sock_ops, before that SYN: RelayConnect, with the port that the program's end has now
//   relay:   decides, connects onward, and only then completes the program's pending connect, by TCP simultaneous open
//   program: getpeername(), getsockname() ─▶ cgroup hooks: what the row says
//
// MPTCP cannot open from both ends at once. Its SYN goes to an early port, where the relay accepts it, so that its connect
// succeeds whatever comes of it, and ends in a reset where nothing does.
//
//   program: listen(10.0.0.7:80)
//   client:  connect(10.0.0.7:80) ─▶ sk_lookup: the SYN is for a listener of the run, so the relay's listener gets it
//   relay:   connects to 10.0.0.7:80 from a port of its own, whose RelaySource says who the client is, and has sk_lookup leave
//            that SYN alone ─▶ the program's listener
//   program: accept(), getpeername() ─▶ cgroup hooks: the client
//
// Datagrams have no connect to wait for. Each destination has a socket of the relay's on the loopback, a RelayPeer; the port that
// a datagram comes from there says whose it is, the socket it comes to whom it is for.
//
//   program: sendto(10.0.0.1:53) ─▶ cgroup/sendmsg: to 127.0.0.1:P, P being that peer's; for a connected socket cgroup/connect
//   relay:   decides, and sends on from one socket for each of the program's; the answer goes back from port P
//   program: recvfrom() ─▶ cgroup/recvmsg: from port P is from 10.0.0.1:53
#pragma once

#define MISHAP_RELAY_PATIENCE_NS 500000000  // no beat for so long: the relay is not there, and connections go direct
#define MISHAP_RELAY_MARK 0x6d697368        // SO_MARK of a relay's listeners, by which another run's redirection knows them
#define MISHAP_RELAY_PRIORITY 5             // SO_PRIORITY of its sockets for datagrams, which takes no right; no TOS comes to it

#define MISHAP_RELAY_PEERS 1024    // of each family: destinations of datagrams; others are not relayed
#define MISHAP_RELAY_ROUTES 64     // that are told from one another, in two tables that are used by turns

#define MISHAP_RELAY_CONTROL_FIELDS(FIELD, ARRAY)                                            \
  FIELD(u64, beat_ns, "CLOCK_MONOTONIC: when the relay was last there; 0 it is not yet, or takes nothing on any more") \
  FIELD(u64, drain_ns, "when it was last there since it takes nothing on; 0 before")         \
  FIELD(u64, netns, "cookie of the network namespace that its listeners are in")             \
  FIELD(u16, port, "of its listeners, on 127.0.0.1 and ::1; host byte order")                \
  ARRAY(u16, early_ports, 2, "of IPv4, of IPv6: where the relay accepts what cannot open from both ends at once; 0 nowhere") \
  FIELD(u8, timed, "some policy ends connects that take too long: a connect looks at RelayRow::patience_ms") \
  ARRAY(u8, reserved, 33, "zero")

#define MISHAP_RELAY_ROW_FIELDS(FIELD, ARRAY)                                                \
  FIELD(u64, cookie, "of the program's socket; another than the KernelSocket's: nothing of it holds") \
  ARRAY(u8, peer, 16, "whom the program connected to; IPv6 or mapped IPv4")                  \
  ARRAY(u8, local, 16, "the relay's own end towards it; all zero: not connected yet")        \
  FIELD(u16, peer_port, "host byte order")                                                   \
  FIELD(u16, local_port, "host byte order")                                                  \
  FIELD(u32, bound, "1: the program chose its address, which the peer is to see")            \
  FIELD(u64, process, "of the thread that connected: pid << 32 | low half of its start time") \
  FIELD(i32, pid, "its process")                                                             \
  FIELD(i32, tid, "that thread")                                                             \
  FIELD(u32, patience_ms, "after which its connect fails with ETIMEDOUT; 0: not known yet")  \
  FIELD(u32, user_timeout_ms, "the program's own TCP_USER_TIMEOUT")                          \
  FIELD(u8, syn_retries, "and its TCP_SYNCNT")                                               \
  FIELD(u8, timed, "the kernel ends this connect when patience_ms says so")                  \
  ARRAY(u8, reserved, 4, "zero")                                                             \
  FIELD(u16, source_port, "the program's end, in host byte order")                           \
  ARRAY(u8, source, 16, "its address; IPv6 or mapped IPv4")                                  \
  FIELD(u32, isn, "sequence number of its SYN")                                              \
  FIELD(u32, spare, "zero")

#define MISHAP_RELAY_CONNECT_FIELDS(FIELD, ARRAY)                                            \
  FIELD(u64, cookie, "of the program's socket")                                              \
  FIELD(u64, process, "of the thread that connects: pid << 32 | low half of its start time") \
  FIELD(i32, pid, "its process")                                                             \
  FIELD(i32, tid, "that thread")                                                             \
  FIELD(u32, row, "of the socket, in the arrays of KernelSocket and RelayRow")               \
  FIELD(u32, isn, "sequence number of the SYN: what a RST has to acknowledge, less 1")       \
  ARRAY(u8, source, 16, "the program's end; IPv6 or mapped IPv4")                            \
  ARRAY(u8, peer, 16, "whom it connects to")                                                 \
  FIELD(u16, source_port, "host byte order")                                                 \
  FIELD(u16, peer_port, "host byte order")                                                   \
  FIELD(u8, family, "of the socket: AF_INET or AF_INET6")                                    \
  FIELD(u8, bound, "1: the program chose the source's address, which the peer is to see")     \
  FIELD(u8, protocol, "Protocol; a datagram socket's is told at each connect, or when it first sends without one") \
  FIELD(u8, early, "1: it went to an early port, and is to be accepted there")               \
  ARRAY(char, program, 16, "name of the thread, as in /proc/PID/comm")                       \
  ARRAY(u64, spare, 3, "zero")

// What a port is that the relay connects from, while it does: RelaySource::state.
#define MISHAP_SOURCE_FREE 0
#define MISHAP_SOURCE_OUTGOING 1  // its connection comes from a program of the run, where its faults are carried
#define MISHAP_SOURCE_INBOUND 2   // its connection stands for a client's

#define MISHAP_RELAY_SOURCES 65536  // one a port
#define MISHAP_RELAY_SOURCE_FIELDS(FIELD, ARRAY)                                             \
  FIELD(u64, cookie, "of the program's listener, once the SYN came by; of the socket that it accepts, once there is one") \
  FIELD(u32, row, "of that socket, in the arrays of KernelSocket and RelayRow")              \
  FIELD(u32, accepted, "1: it is the accepted socket")                                       \
  ARRAY(u8, source, 16, "the address that goes with the port; IPv6 or mapped IPv4")          \
  ARRAY(u8, to, 16, "where the relay connects to")                                           \
  ARRAY(u8, client, 16, "whom the connection stands for")                                    \
  FIELD(u16, to_port, "host byte order")                                                     \
  FIELD(u16, client_port, "host byte order")                                                 \
  FIELD(u32, state, "MISHAP_SOURCE_*: written last")

#define MISHAP_RELAY_PEER_FIELDS(FIELD, ARRAY)                                               \
  ARRAY(u8, address, 16, "the destination; IPv6 or mapped IPv4")                             \
  FIELD(u16, port, "the destination's, host byte order; 0 free")                             \
  FIELD(u16, pool_port, "of the relay's socket for it")                                      \
  ARRAY(u8, reserved, 4, "zero")

// Which source address the kernel chooses for a destination, as bind-less sockets ask for by connecting.
#define MISHAP_RELAY_ROUTE_FIELDS(FIELD, ARRAY)                                              \
  ARRAY(u32, prefix, 4, "as IPv6 or mapped IPv4, in network byte order")                     \
  ARRAY(u32, mask, 4, "the same")                                                            \
  ARRAY(u32, source, 4, "the same; all zero: there is no way there")

#define MISHAP_RELAY_POOL_FIELDS(FIELD, ARRAY)                                               \
  ARRAY(u32, ready, 2, "peers that have a socket, of IPv4 and of IPv6")                      \
  ARRAY(u32, used, 2, "of them, are somebody's: the first ones")                             \
  FIELD(u32, turn, "which table of routes holds: 0 or 1")                                    \
  ARRAY(u32, routes_count, 2, "rows of each")                                                \
  FIELD(u32, reserved, "zero")                                                               \
  ARRAY(RelayRoute, routes, 128, "the two tables, longest prefix first")                     \
  ARRAY(RelayPeer, peers, 2048, "IPv4's, then IPv6's")                                       \
  ARRAY(u16, peer_of_port, 131072, "1 + the peer's number in its family, by pool port; IPv4's, then IPv6's; 0 no peer's")

#ifdef __cplusplus
#include "fields.h"

namespace mishap {

MISHAP_STRUCT(RelayControl, 64, "The relay as the kernel's redirection sees it.", MISHAP_RELAY_CONTROL_FIELDS)
MISHAP_STRUCT(RelayRow, 104, "A socket whose connection the relay carries.", MISHAP_RELAY_ROW_FIELDS)
MISHAP_STRUCT(RelayConnect, 112, "A connect that was handed to the relay.", MISHAP_RELAY_CONNECT_FIELDS)
MISHAP_STRUCT(RelaySource, 72, "A port that the relay connects from.", MISHAP_RELAY_SOURCE_FIELDS)
MISHAP_STRUCT(RelayPeer, 24, "A destination of datagrams.", MISHAP_RELAY_PEER_FIELDS)
MISHAP_STRUCT(RelayRoute, 48, "A network, and the source address that the kernel chooses towards it.", MISHAP_RELAY_ROUTE_FIELDS)
MISHAP_STRUCT(RelayPool, 317472, "Where the programs' datagrams go.", MISHAP_RELAY_POOL_FIELDS)
static_assert(sizeof(RelayPool::peers) / sizeof(RelayPeer) == 2 * MISHAP_RELAY_PEERS);
static_assert(sizeof(RelayPool::routes) / sizeof(RelayRoute) == 2 * MISHAP_RELAY_ROUTES);

}  // namespace mishap
#endif
