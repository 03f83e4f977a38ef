// What happened on a socket? Bytes and calls in both directions, states, round trips, retransmits, resets, arrivals, and how
// long what was called took to leave and what arrived to be received, all into the socket's row. It sees what every program
// does, however it does it: libc, raw system calls, io_uring, static binaries.
#include "common.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

static __always_inline void take_addresses(KernelSocket *row, const struct sock *sk) {
  const struct sock_common *common = &sk->__sk_common;
  row->local_port = common->skc_num;
  take_address(row->local, common, common->skc_rcv_saddr, &common->skc_v6_rcv_saddr);
  if (row->flags & MISHAP_SOCKET_RELAYED) return;  // its peer is the relay; whom the program means is there already
  row->peer_port = __builtin_bswap16(common->skc_dport);
  take_address(row->peer, common, common->skc_daddr, &common->skc_v6_daddr);
}

// Tasks that were found not to be watched, which a look at what they have at hand tells no more quickly than this: others'
// traffic comes by here at every call. The loader empties it every moment, and when a process joins the run.
#define OUTSIDERS 256
unsigned long long outsiders[OUTSIDERS];  // in words that the loader knows too

static __always_inline unsigned long long *outsider_at(u64 task) { return &outsiders[(task >> 6 ^ task >> 14) % OUTSIDERS]; }
static __always_inline bool is_outsider(void) {
  const u64 task = bpf_get_current_task();
  return *outsider_at(task) == task;
}

// A socket that was there before us, or was accepted: its row from its first call on, when the task is one we watch.
static __noinline KernelSocket *adopt(struct sock *sk) {
  const u32 family = sk->__sk_common.skc_family, protocol = sk->sk_protocol;
  if (!is_ours(family, protocol)) return NULL;
  if (!in_scope()) {
    const u64 task = bpf_get_current_task();
    *outsider_at(task) = task;
    return NULL;
  }
  struct tag *tag = bpf_sk_storage_get(&mishap_tags, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
  if (!tag) return NULL;
  const u64 cookie = bpf_get_socket_cookie(sk);
  KernelSocket *row = make_row(tag, cookie, family, protocol);
  if (!row) return NULL;
  take_current(row);
  take_addresses(row, sk);
  row->flags |= MISHAP_SOCKET_ACCEPTED;
  row->tcp_state = protocol == IPPROTO_UDP ? 0 : sk->__sk_common.skc_state;
  publish(row, cookie);
  return row;
}

// Most rows are where their window begins: then the socket's storage, a dearer look, is not asked.
static __always_inline KernelSocket *find(const struct sock *sk) {
  const u64 cookie = sk->__sk_common.skc_cookie.counter;
  if (!cookie) return NULL;
  u32 at = MISHAP_KERNEL_ROW(cookie);
  KernelSocket *row = bpf_map_lookup_elem(&mishap_sockets, &at);
  if (row && row->owner.cookie == cookie) return row;
  struct tag *tag = bpf_sk_storage_get(&mishap_tags, (void *)sk, NULL, 0);
  return tag && tag->cookie == cookie ? row_of(tag) : NULL;
}

static __always_inline void tell_delay(KernelSocket *row, u32 direction) {
  const u64 since = row->since_ns[direction], now = bpf_ktime_get_ns();
  row->since_ns[direction] = 0;
  struct event *event = bpf_ringbuf_reserve(&mishap_events, sizeof(*event), 0);
  if (!event) {
    lose(LOST_EVENTS, 1);
    return;
  }
  event->kind = MISHAP_EVENT_DELAY;
  event->delay.policy = row->policy;
  event->delay.direction = direction;
  event->delay.delay_ns = now - since;
  tell(event);
}

static __always_inline void count(KernelSocket *row, u32 direction, u64 bytes) {
  __sync_fetch_and_add(&row->bytes[direction], bytes);
  __sync_fetch_and_add(&row->ops[direction], 1);
  if (row->since_ns[direction]) tell_delay(row, direction);
}

static __always_inline int sent(struct sock *sk, int length) {
  KernelSocket *row = find(sk);
  if (!row && (is_outsider() || !(row = adopt(sk)))) return 0;
  if (length < 0) {
    if (length != -EAGAIN) __sync_fetch_and_add(&row->failures, 1);
    return 0;
  }
  count(row, UP, length);
  if (!row->local_port) take_addresses(row, sk);  // UDP: it has no states that would tell
  return 0;
}

static __always_inline int received(struct sock *sk, int length, int flags) {
  if (length < 0 || flags & MSG_PEEK) return 0;
  KernelSocket *row = find(sk);
  if (!row && (is_outsider() || !(row = adopt(sk)))) return 0;
  if (length > 0 || row->protocol == PROTOCOL_UDP) count(row, DOWN, length);
  return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(mishap_sent, struct sock *sk, int length, int flags) { return sent(sk, length); }
SEC("tp_btf/sock_recv_length")
int BPF_PROG(mishap_received, struct sock *sk, int length, int flags) { return received(sk, length, flags); }

// Kernels before 6.3 have no tracepoint for lengths. There the functions that the two stand behind tell, and the one that
// sendfile(2) and splice(2) send by, which came to be no other than send(2)'s.
SEC("fexit/inet_sendmsg")
int BPF_PROG(mishap_sent4, struct socket *socket, void *message, u64 size, int length) { return sent(socket->sk, length); }
SEC("fexit/inet6_sendmsg")
int BPF_PROG(mishap_sent6, struct socket *socket, void *message, u64 size, int length) { return sent(socket->sk, length); }
SEC("fexit/inet_sendpage")
int BPF_PROG(mishap_sent_page, struct socket *socket, void *page, int offset, u64 size, int flags, int length) { return sent(socket->sk, length); }
SEC("fexit/inet_recvmsg")
int BPF_PROG(mishap_received4, struct socket *socket, void *message, u64 size, int flags, int length) { return received(socket->sk, length, flags); }
SEC("fexit/inet6_recvmsg")
int BPF_PROG(mishap_received6, struct socket *socket, void *message, u64 size, int flags, int length) { return received(socket->sk, length, flags); }

// A connection that nobody accepted yet runs in whoever's context the last packet came: it is its listener's until then.
static __always_inline KernelSocket *inherit(const struct sock *sk, struct tag *tag) {
  const KernelSocket *listener = row_of(tag);
  const u64 cookie = bpf_get_socket_cookie((void *)sk);
  if (!listener) return NULL;
  KernelSocket *row = make_row(tag, cookie, sk->__sk_common.skc_family, sk->sk_protocol);
  if (!row) return NULL;
  row->owner.process = listener->owner.process;
  row->owner.pid = listener->owner.pid;
  row->owner.tid = listener->owner.tid;
  row->owner.cgroup = listener->owner.cgroup;
  row->owner.role = ROLE_ACCEPTOR;
  __builtin_memcpy(row->program, listener->program, sizeof(row->program));
  publish(row, cookie);
  return row;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(mishap_state, const struct sock *sk, int before, int after) {
  struct tag *tag = bpf_sk_storage_get(&mishap_tags, (void *)sk, NULL, 0);
  if (!tag || !tag->cookie) return 0;
  KernelSocket *row = tag->cookie == bpf_get_socket_cookie((void *)sk) ? row_of(tag) : NULL;
  if (!row && after == TCP_ESTABLISHED) row = inherit(sk, tag);
  if (!row) return 0;
  row->tcp_state = after;
  if (after == TCP_LISTEN) row->flags |= MISHAP_SOCKET_LISTENING;
  if (after == TCP_CLOSE_WAIT) row->fin = 1;
  // One that is handed to the relay has a local port once it was completed.
  if (after != TCP_CLOSE && !(after == TCP_SYN_SENT && row->flags & MISHAP_SOCKET_RELAYED)) take_addresses(row, sk);
  return 0;
}

// One that nobody accepted, which is never released. Closed it may have been long before, and may yet have been accepted.
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(mishap_unaccepted, struct sock *sk) {
  struct tag *tag = bpf_sk_storage_get(&mishap_tags, sk, NULL, 0);
  KernelSocket *row = tag && tag->cookie && tag->cookie == bpf_get_socket_cookie(sk) ? row_of(tag) : NULL;
  if (!row) return 0;
  tag->cookie = 0;
  row->owner.cookie = 0;
  return 0;
}

// struct tcp_skb_cb, at the head of cb: where the segment begins and ends.
struct segment {
  u32 seq, end_seq;
};

SEC("tp_btf/tcp_probe")
int BPF_PROG(mishap_arrived, struct sock *sk, struct sk_buff *skb) {
  KernelSocket *row = find(sk);
  struct tcp_sock *tcp = row ? bpf_skc_to_tcp_sock(sk) : NULL;
  if (!tcp) return 0;
  struct segment segment;
  if (bpf_probe_read_kernel(&segment, sizeof(segment), skb->cb)) return 0;
  const u32 next = tcp->rcv_nxt;
  const i32 bytes = segment.end_seq - next;
  if (segment.seq != next || bytes <= 0) return 0;  // nothing new, or not yet in order
  const u64 now = bpf_ktime_get_ns(), count = row->arrivals_count;
  KernelArrival *arrival = &row->arrivals[count % MISHAP_KERNEL_ARRIVALS];
  arrival->end = tcp->bytes_received + bytes;
  arrival->at_ns = now;
  row->arrivals_count = count + 1;
  row->srtt_us = tcp->srtt_us >> 3;
  if (row->flags & MISHAP_SOCKET_CLAIMED && !row->since_ns[DOWN] && tcp->copied_seq == next) row->since_ns[DOWN] = now;
  return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(mishap_resent, const struct sock *sk) {
  KernelSocket *row = find(sk);
  if (!row) return 0;
  if (row->flags & MISHAP_SOCKET_RELAYED && sk->__sk_common.skc_state == TCP_SYN_SENT) return 0;  // its SYNs go nowhere
  __sync_fetch_and_add(&row->retransmits, 1);
  return 0;
}

static __always_inline void count_reset(const struct sock *sk) {
  KernelSocket *row = sk ? find(sk) : NULL;
  if (!row) return;
  __sync_fetch_and_add(&row->resets, 1);
  row->flags |= MISHAP_SOCKET_RESET;
}
SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(mishap_reset_received, struct sock *sk) {
  count_reset(sk);
  return 0;
}
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(mishap_reset_sent, const struct sock *sk) {
  count_reset(sk);
  return 0;
}
