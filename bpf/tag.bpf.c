// Whose socket is this? Every socket of the run's cgroup gets a row with process, thread, cgroup and time when it is made,
// so that its owner is known before its first byte; the row goes when it is closed, and its last state is told the loader.
// Programs that carry the interceptor say here which flows it carries (setsockopt, native/contract/kernel.h).
#include "common.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

static __always_inline struct tag *tag_of(struct bpf_sock *sk, u64 flags) {
  return bpf_sk_storage_get(&mishap_tags, sk, NULL, flags);
}

static __always_inline void tell_closed(const KernelSocket *row) {
  struct event *event = bpf_ringbuf_reserve(&mishap_events, sizeof(*event), 0);
  if (!event) {
    lose(LOST_EVENTS, 1);
    lose(LOST_UP, row->bytes[UP]);
    lose(LOST_DOWN, row->bytes[DOWN]);
    return;
  }
  event->kind = MISHAP_EVENT_CLOSED;
  __builtin_memcpy(&event->socket, row, sizeof(*row));
  tell(event);
}

// The row of a socket that the running task uses. What it accepted is its own from now on. A connection that has no row yet
// still has its listener's tag.
static __always_inline KernelSocket *used_row(struct bpf_sock *sk) {
  struct tag *tag = tag_of(sk, 0);
  KernelSocket *row = tag ? row_of(tag) : NULL;
  if (!row || (row->flags & MISHAP_SOCKET_LISTENING && sk->state != TCP_LISTEN)) return NULL;
  if (row->owner.role == ROLE_ACCEPTOR && !(row->flags & MISHAP_SOCKET_ACCEPTED)) {
    take_current(row);
    row->flags |= MISHAP_SOCKET_ACCEPTED;
  }
  return row;
}

SEC("cgroup/sock_create")
int mishap_made(struct bpf_sock *sk) {
  if (!is_ours(sk->family, sk->protocol) || (scope == SCOPE_PROCESS && !in_scope())) return 1;
  struct tag *tag = tag_of(sk, BPF_SK_STORAGE_GET_F_CREATE);
  if (!tag) {
    lose(LOST_ROWS, 1);
    return 1;
  }
  const u64 cookie = bpf_get_socket_cookie(sk);
  KernelSocket *row = make_row(tag, cookie, sk->family, sk->protocol);
  if (row) {
    take_current(row);
    publish(row, cookie);
  }
  return 1;
}

SEC("cgroup/sock_release")
int mishap_closed(struct bpf_sock *sk) {
  struct tag *tag = tag_of(sk, 0);
  if (!tag || tag->cookie != bpf_get_socket_cookie(sk)) return 1;
  KernelSocket *row = row_of(tag);
  if (!row) return 1;
  if (sk->protocol == IPPROTO_TCP) {
    // What splice(2) took is in no call that is traced; TCP itself knows. A FIN is one byte of the stream.
    const struct tcp_sock *tcp = (void *)sk;
    const u32 next = BPF_CORE_READ(tcp, rcv_nxt), copied = BPF_CORE_READ(tcp, copied_seq);
    const u64 taken = BPF_CORE_READ(tcp, bytes_received) - (u32)(next - copied);
    if (taken > row->bytes[DOWN] + 1) row->bytes[DOWN] = taken - (row->fin && copied == next ? 1 : 0);
    row->srtt_us = BPF_CORE_READ(tcp, srtt_us) >> 3;
  }
  tell_closed(row);
  tag->cookie = 0;
  row->owner.cookie = 0;
  return 1;
}

// accept(2) asks for the peer's name where the program wants to know it: in the accepting task, before it has the descriptor.
static __always_inline int named(struct bpf_sock_addr *context) {
  struct bpf_sock *sk = context->sk;
  if (sk) used_row(sk);
  return 1;
}
SEC("cgroup/getpeername4")
int mishap_named4(struct bpf_sock_addr *context) { return named(context); }
SEC("cgroup/getpeername6")
int mishap_named6(struct bpf_sock_addr *context) { return named(context); }

SEC("cgroup/setsockopt")
int mishap_said(struct bpf_sockopt *said) {
  if (said->level != MISHAP_KERNEL_LEVEL) return 1;
  struct bpf_sock *sk = said->sk;
  KernelSocket *row = sk ? used_row(sk) : NULL;
  if (row && said->optname == MISHAP_KERNEL_CALL) {
    row->since_ns[UP] = bpf_ktime_get_ns();
  } else if (row && said->optname == MISHAP_KERNEL_CLAIM) {
    const KernelClaim *claim = said->optval;
    if ((void *)(claim + 1) <= said->optval_end) row->policy = claim->policy;
    row->flags |= MISHAP_SOCKET_CLAIMED;
  }
  said->optlen = -1;  // it was meant for us: the kernel's own setsockopt is not called, and the call succeeds
  return 1;
}
