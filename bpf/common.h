// What the kernel's programs share: the contract's structs in C, the few kernel structs they read (relocated by CO-RE, so
// that no header of one kernel is needed to build), their maps, and how a socket comes by its row.
//
//   socket ──storage──▶ its row's number ──▶ `sockets`, a frozen array that everybody else maps read-only
//
// tag.bpf.c says whose a socket is; observe.bpf.c says what happened on it. Both are loaded with one set of maps.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 i32;
typedef __s64 i64;

#include "../native/contract/kernel.h"

#define MEMBER(type, name, doc) type name;
#define MEMBER_ARRAY(type, name, length, doc) type name[length];
typedef struct Owner {
  MISHAP_OWNER(MEMBER, MEMBER_ARRAY)
} Owner;
typedef struct KernelClaim {
  MISHAP_KERNEL_CLAIM_FIELDS(MEMBER, MEMBER_ARRAY)
} KernelClaim;
typedef struct KernelArrival {
  MISHAP_KERNEL_ARRIVAL(MEMBER, MEMBER_ARRAY)
} KernelArrival;
typedef struct KernelSocket {
  MISHAP_KERNEL_SOCKET(MEMBER, MEMBER_ARRAY)
} KernelSocket;
typedef struct KernelDelay {
  MISHAP_KERNEL_DELAY_FIELDS(MEMBER, MEMBER_ARRAY)
} KernelDelay;

// ---- the kernel's own structs, as far as they are read -----------------------------------------------------------------

#define CORE __attribute__((preserve_access_index))

struct in6_addr {
  u8 bytes[16];
};
typedef struct {
  i64 counter;
} atomic64_t;
struct net {
  u64 net_cookie;
} CORE;
typedef struct {
  struct net *net;
} possible_net_t;
struct sock_common {
  u16 skc_family;
  volatile u8 skc_state;
  u8 skc_ipv6only : 1;
  int skc_bound_dev_if;
  possible_net_t skc_net;
  u32 skc_daddr, skc_rcv_saddr;
  u16 skc_dport, skc_num;
  struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
  atomic64_t skc_cookie;
} CORE;
struct sock {
  struct sock_common __sk_common;
  u8 sk_userlocks : 4;
  u16 sk_type, sk_protocol;
  u32 sk_mark;
} CORE;
struct socket {
  struct sock *sk;
} CORE;
struct tcp_sock {
  u32 rcv_nxt, copied_seq, srtt_us, write_seq;
  u64 bytes_received;
  u8 is_mptcp : 1;
} CORE;
struct inet_connection_sock {
  void *icsk_ulp_data;
} CORE;
struct mptcp_sock {
} CORE;
struct mptcp_subflow_context {
  struct sock *conn;
} CORE;
struct sk_buff {
  char cb[48];
} CORE;
struct ns_common {
  unsigned int inum;
} CORE;
struct pid_namespace {
  struct ns_common ns;
} CORE;
struct upid {
  int nr;
  struct pid_namespace *ns;
} CORE;
struct pid {
  unsigned int level;
  struct upid numbers[1];
} CORE;
struct task_struct {
  int pid, tgid;
  char comm[16];
  u64 start_boottime;
  struct task_struct *group_leader;
  struct pid *thread_pid;
} CORE;

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262
#define MSG_PEEK 2
#define EAGAIN 11
#define SOCK_BINDADDR_LOCK 4
#define SOCK_BINDPORT_LOCK 8
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_SYNCNT 7
#define TCP_USER_TIMEOUT 18
#define TCP_CLOSE 7
#define TCP_CLOSE_WAIT 8
#define TCP_LISTEN 10
#define UP 0
#define DOWN 1

// The contract's words: enum class Protocol, Role, OwnerSource.
#define PROTOCOL_TCP 1
#define PROTOCOL_UDP 2
#define ROLE_CONNECTOR 0
#define ROLE_ACCEPTOR 1
#define ROLE_DATAGRAM 2
#define SOURCE_KERNEL 2

// ---- maps --------------------------------------------------------------------------------------------------------------

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, MISHAP_KERNEL_SOCKETS);
  __type(key, u32);
  __type(value, KernelSocket);
} mishap_sockets SEC(".maps");

// An accepted socket starts with a copy of its listener's tag, which its cookie shows to be another's.
struct tag {
  u64 cookie;
  u32 row;
  u32 reserved;
};
struct {
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
  __type(key, int);
  __type(value, struct tag);
} mishap_tags SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 4 << 20);
} mishap_events SEC(".maps");

struct event {
  u64 kind;  // MISHAP_EVENT_*
  union {
    KernelSocket socket;
    KernelDelay delay;
  };
};

// What could not be kept.
#define LOST_EVENTS 0
#define LOST_ROWS 1
#define LOST_UP 2
#define LOST_DOWN 3
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 4);
  __type(key, u32);
  __type(value, u64);
} mishap_lost SEC(".maps");

// The loader looks by itself now and then; waking it for each would cost more than what it takes in.
#define MUCH (1 << 20)
static __always_inline void tell(struct event *event) {
  const bool much = bpf_ringbuf_query(&mishap_events, BPF_RB_AVAIL_DATA) > MUCH;
  bpf_ringbuf_submit(event, much ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

// Set by the loader before the programs are loaded.
#define SCOPE_CGROUP 0  // what the cgroup hooks tag, and what tasks of the cgroup use
#define SCOPE_PROCESS 1
#define SCOPE_ALL 2
const volatile unsigned int scope = SCOPE_CGROUP;
const volatile int scope_pid = 0;  // as its own pid namespace numbers it
const volatile unsigned int scope_pid_namespace = 0;

struct {
  __uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
  __uint(max_entries, 1);
  __type(key, u32);
  __type(value, u32);
} mishap_cgroup SEC(".maps");

// ---- rows --------------------------------------------------------------------------------------------------------------

#define BEING_FILLED (~0ull)

static __always_inline void lose(u32 what, u64 many) {
  u64 *counter = bpf_map_lookup_elem(&mishap_lost, &what);
  if (counter) __sync_fetch_and_add(counter, many);
}

// The row of a tag, while it is still that socket's.
static __always_inline KernelSocket *row_of(const struct tag *tag) {
  u32 at = tag->row;
  KernelSocket *row = bpf_map_lookup_elem(&mishap_sockets, &at);
  return row && row->owner.cookie == tag->cookie ? row : NULL;
}

// Process and thread of a task, in the namespace that they live in.
static __always_inline void name_task(struct task_struct *task, u64 *process, i32 *pid, i32 *tid) {
  struct task_struct *leader = BPF_CORE_READ(task, group_leader);
  struct pid *thread = BPF_CORE_READ(task, thread_pid), *whole = BPF_CORE_READ(leader, thread_pid);
  u32 level = BPF_CORE_READ(thread, level);
  struct upid upid = {};
  const u64 stride = bpf_core_type_size(struct upid), from = bpf_core_field_offset(struct pid, numbers);
  bpf_probe_read_kernel(&upid.nr, sizeof(upid.nr), (void *)thread + from + level * stride + bpf_core_field_offset(struct upid, nr));
  *tid = upid.nr;
  bpf_probe_read_kernel(&upid.nr, sizeof(upid.nr), (void *)whole + from + level * stride + bpf_core_field_offset(struct upid, nr));
  *pid = upid.nr;
  const u64 ticks = BPF_CORE_READ(leader, start_boottime) / 10000000;  // as in /proc/PID/stat
  *process = (u64)(u32)upid.nr << 32 | (u32)ticks;
}
static __always_inline void name_current(u64 *process, i32 *pid, i32 *tid) { name_task((void *)bpf_get_current_task(), process, pid, tid); }

static __always_inline void take_current(KernelSocket *row) {
  name_current(&row->owner.process, &row->owner.pid, &row->owner.tid);
  row->owner.cgroup = bpf_get_current_cgroup_id();
  bpf_get_current_comm(row->program, sizeof(row->program));
}

// A free row for a socket, filled but for its owner; the caller publishes it by setting the cookie.
static __always_inline KernelSocket *make_row(struct tag *tag, u64 cookie, u32 family, u32 protocol) {
  const u32 start = MISHAP_KERNEL_ROW(cookie);
  for (u32 i = 0; i < MISHAP_KERNEL_WINDOW; i++) {
    u32 at = (start + i) % MISHAP_KERNEL_SOCKETS;
    KernelSocket *row = bpf_map_lookup_elem(&mishap_sockets, &at);
    if (!row) return NULL;
    if (row->owner.cookie || __sync_val_compare_and_swap(&row->owner.cookie, 0, BEING_FILLED) != 0) continue;
    __builtin_memset((u8 *)row + sizeof(u64), 0, sizeof(*row) - sizeof(u64));
    row->owner.fd = row->owner.bound_policy = row->policy = -1;
    row->owner.source = SOURCE_KERNEL;
    row->owner.role = protocol == IPPROTO_UDP ? ROLE_DATAGRAM : ROLE_CONNECTOR;
    row->owner.created_ns = bpf_ktime_get_ns();
    row->family = family;
    row->protocol = protocol == IPPROTO_UDP ? PROTOCOL_UDP : PROTOCOL_TCP;
    tag->row = at;
    tag->cookie = cookie;
    return row;
  }
  lose(LOST_ROWS, 1);
  return NULL;
}

static __always_inline void publish(KernelSocket *row, u64 cookie) {
  __sync_val_compare_and_swap(&row->owner.cookie, BEING_FILLED, cookie);
}

static __always_inline void take_address(u8 to[16], const struct sock_common *common, u32 four, const struct in6_addr *six) {
  if (common->skc_family == AF_INET) {
    to[10] = to[11] = 0xff;
    __builtin_memcpy(to + 12, &four, 4);
  } else {
    bpf_probe_read_kernel(to, 16, six);
  }
}

static __always_inline bool is_ours(u32 family, u32 protocol) {
  return (family == AF_INET || family == AF_INET6) && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_MPTCP);
}

// Whether what the running task does is to be seen.
static __always_inline bool in_scope(void) {
  if (scope == SCOPE_ALL) return true;
  if (scope == SCOPE_CGROUP) return bpf_current_task_under_cgroup(&mishap_cgroup, 0) == 1;
  struct task_struct *task = (void *)bpf_get_current_task();
  struct pid *process = BPF_CORE_READ(task, group_leader, thread_pid);
  u32 level = BPF_CORE_READ(process, level);
  const void *number = (void *)process + bpf_core_field_offset(struct pid, numbers) + level * bpf_core_type_size(struct upid);
  struct pid_namespace *space = NULL;
  i32 nr = 0;
  bpf_probe_read_kernel(&nr, sizeof(nr), number + bpf_core_field_offset(struct upid, nr));
  bpf_probe_read_kernel(&space, sizeof(space), number + bpf_core_field_offset(struct upid, ns));
  return nr == scope_pid && BPF_CORE_READ(space, ns.inum) == scope_pid_namespace;
}
