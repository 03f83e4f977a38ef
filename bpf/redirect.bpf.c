// Who carries this connection? A connect that the interceptor has not claimed is handed to the relay while the relay is there:
// its SYN goes to the relay's port, where it is dropped in silence until the relay completes it (native/contract/relay.h has
// the way of it), and the program is shown the peer and the address that it would have without. No beat of the relay for half
// a second, another network namespace, a socket bound to a device or a port, which no other socket can have then, a peer
// that no connection can have or whose link is not told us, the relay of another run: it goes direct.
#include "relay.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

// A socket that was made before there was a redirection has its row from here on, when who connects it is in scope.
static __always_inline KernelSocket *adopt(struct bpf_sock_addr *context, struct bpf_sock *sk) {
  if (!is_ours(sk->family, sk->protocol)) return NULL;
  struct tag *tag = bpf_sk_storage_get(&mishap_tags, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
  if (!tag) return NULL;
  const u64 cookie = bpf_get_socket_cookie(context);
  KernelSocket *row = make_row(tag, cookie, sk->family, sk->protocol);
  if (!row) return NULL;
  take_current(row);
  publish(row, cookie);
  return row;
}

// Remembers whom a program connects to; the port to send it to instead, or 0: nowhere else. `peer` as IPv6 or mapped IPv4.
static __always_inline u16 hand_over(struct bpf_sock_addr *context, const u32 peer[4]) {
  struct bpf_sock *sk = context->sk;
  struct tag *tag = sk ? tag_of_program(sk) : NULL;
  KernelSocket *socket = tag ? row_of(tag) : NULL;
  const bool wanted = scope != SCOPE_PROCESS || in_scope(), early = sk && multipath(sk);
  if (sk && !socket && wanted && !early) {
    socket = adopt(context, sk);
    tag = bpf_sk_storage_get(&mishap_tags, sk, NULL, 0);
  }
  if (!socket || !tag) return 0;
  const u32 at = tag->row;
  RelayRow *row = bpf_map_lookup_elem(&mishap_relayed, &at);
  if (!row) return 0;
  row->cookie = 0;  // of an earlier attempt
  socket->flags &= ~MISHAP_SOCKET_RELAYED;
  if (!wanted || context->protocol != IPPROTO_TCP || socket->flags & MISHAP_SOCKET_CLAIMED) return 0;
  RelayControl *control = relay_for(context);
  if (!control || is_relay(context, peer, true)) return 0;
  const u16 port = early ? control->early_ports[peer[2] == MAPPED ? 0 : 1] : control->port;
  const struct sock *whole = (void *)bpf_skc_to_tcp_sock(sk);
  const u32 chosen = whole ? BPF_CORE_READ_BITFIELD_PROBED(whole, sk_userlocks) : 0;
  if (!port || sk->bound_dev_if || chosen & SOCK_BINDPORT_LOCK) return 0;
  __builtin_memcpy(row->peer, peer, sizeof(row->peer));
  __builtin_memset(row->local, 0, sizeof(row->local));
  row->peer_port = __builtin_bswap16(context->user_port);
  row->local_port = 0;
  row->bound = (chosen & SOCK_BINDADDR_LOCK) != 0;
  name_current(&row->process, &row->pid, &row->tid);
  row->cookie = tag->cookie;
  __builtin_memcpy(socket->peer, peer, sizeof(socket->peer));
  socket->peer_port = row->peer_port;
  socket->flags |= MISHAP_SOCKET_RELAYED;
  return port;
}

SEC("cgroup/connect4")
int mishap_connect4(struct bpf_sock_addr *context) {
  const u32 address = context->user_ip4;
  if (context->type != SOCK_STREAM || is_group(address)) return 1;
  const u32 peer[4] = {0, 0, MAPPED, this_host(address)};
  const u16 port = hand_over(context, peer);
  if (!port) return 1;
  context->user_ip4 = LOOPBACK;
  context->user_port = __builtin_bswap16(port);
  return 1;
}

SEC("cgroup/connect6")
int mishap_connect6(struct bpf_sock_addr *context) {
  u32 peer[4] = {context->user_ip6[0], context->user_ip6[1], context->user_ip6[2], context->user_ip6[3]};
  const bool mapped = !peer[0] && !peer[1] && peer[2] == MAPPED;
  if (context->type != SOCK_STREAM || (peer[0] & __builtin_bswap32(0xff000000)) == __builtin_bswap32(0xff000000) || (mapped && is_group(peer[3]))) return 1;
  if (mapped) peer[3] = this_host(peer[3]);
  if ((peer[0] & __builtin_bswap32(0xffc00000)) == __builtin_bswap32(0xfe800000)) return 1;
  if (!peer[0] && !peer[1] && !peer[2] && !peer[3]) peer[3] = __builtin_bswap32(1);
  const u16 port = hand_over(context, peer);
  if (!port) return 1;
  context->user_ip6[0] = context->user_ip6[1] = 0;
  context->user_ip6[2] = mapped ? MAPPED : 0;
  context->user_ip6[3] = mapped ? LOOPBACK : __builtin_bswap32(1);
  context->user_port = __builtin_bswap16(port);
  return 1;
}

// No packet makes a connect fail with ETIMEDOUT; its own timer does. So where a policy ends connects, that timer first rings
// almost at once, and then when the relay says so: by TCP_USER_TIMEOUT, with retries enough not to end before.
#define FIRST_RTO_JIFFIES 4
#define MOST_SYNS 127

static __always_inline int option_of(struct bpf_sock_ops *context, int name) {
  int value = 0;
  bpf_getsockopt(context, IPPROTO_TCP, name, &value, sizeof(value));
  return value;
}
static __always_inline void set_option(struct bpf_sock_ops *context, int name, int value) { bpf_setsockopt(context, IPPROTO_TCP, name, &value, sizeof(value)); }

static __always_inline void time_connect(struct bpf_sock_ops *context, RelayRow *row) {
  const u32 zero = 0;
  const RelayControl *control = bpf_map_lookup_elem(&mishap_relay, &zero);
  row->patience_ms = 0;
  row->user_timeout_ms = option_of(context, TCP_USER_TIMEOUT);
  row->syn_retries = option_of(context, TCP_SYNCNT);
  row->timed = control && control->timed && bpf_sock_ops_cb_flags_set(context, BPF_SOCK_OPS_RTO_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG) == 0;
  if (row->timed) set_option(context, TCP_SYNCNT, MOST_SYNS);
}
static __always_inline void end_timing(struct bpf_sock_ops *context, RelayRow *row) {
  set_option(context, TCP_SYNCNT, row->syn_retries);
  set_option(context, TCP_USER_TIMEOUT, row->user_timeout_ms);
  bpf_sock_ops_cb_flags_set(context, 0);
  row->timed = 0;
}

static __always_inline int tell_connect(struct bpf_sock_ops *context, struct bpf_sock *sk, RelayRow *row);

SEC("sockops")
int mishap_connecting(struct bpf_sock_ops *context) {
  const u32 op = context->op, after = context->args[1];
  if (op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_TIMEOUT_INIT && op != BPF_SOCK_OPS_RTO_CB && op != BPF_SOCK_OPS_STATE_CB) return 1;
  struct bpf_sock *sk = context->sk;
  RelayRow *row = relayed(sk);
  if (!row) return 1;
  if (op == BPF_SOCK_OPS_TCP_CONNECT_CB) return tell_connect(context, sk, row);
  if (!row->timed) return 1;
  if (op == BPF_SOCK_OPS_TIMEOUT_INIT) context->reply = FIRST_RTO_JIFFIES;
  else if (op == BPF_SOCK_OPS_STATE_CB && after != TCP_SYN_RECV) end_timing(context, row);  // half open, its timer may ring once more
  else if (op == BPF_SOCK_OPS_RTO_CB && row->patience_ms) set_option(context, TCP_USER_TIMEOUT, row->patience_ms);
  return 1;
}

// Before the SYN: the program's end has its port, and its sequence begins with the SYN's.
static __always_inline int tell_connect(struct bpf_sock_ops *context, struct bpf_sock *sk, RelayRow *row) {
  const bool early = multipath(sk);
  row->timed = 0;
  if (!early) time_connect(context, row);
  struct tag *tag = tag_of_program(sk);
  KernelSocket *socket = tag ? row_of(tag) : NULL;
  struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
  if (!socket || !tcp) return 1;
  u32 source[4] = {0, 0, MAPPED, context->local_ip4};
  if (context->family == AF_INET6 && !(row->peer[10] == 0xff && row->peer[11] == 0xff && !row->peer[0])) {
    source[0] = context->local_ip6[0];
    source[1] = context->local_ip6[1];
    source[2] = context->local_ip6[2];
    source[3] = context->local_ip6[3];
  }
  row->isn = tcp->write_seq;
  row->source_port = context->local_port;
  __builtin_memcpy(row->source, source, sizeof(row->source));
  RelayConnect *connect = begin_connect(tag, row, socket);
  if (!connect) {
    lose(LOST_EVENTS, 1);  // nobody completes it: the kernel gives up in time, as with a network that is gone
    return 1;
  }
  connect->early = early;
  connect->isn = row->isn;
  connect->bound = row->bound;
  connect->source_port = row->source_port;
  __builtin_memcpy(connect->source, source, sizeof(connect->source));
  bpf_ringbuf_submit(connect, 0);
  return 1;
}

static __always_inline int show_peer(struct bpf_sock_addr *context, bool six) {
  const RelayRow *row = relayed(context->sk);
  return row ? show(context, row->peer, row->peer_port, six) : 1;
}
static __always_inline int show_local(struct bpf_sock_addr *context, bool six) {
  struct bpf_sock *sk = context->sk;
  const RelayRow *row = relayed(sk);
  if (!sk || !row) return 1;
  if (context->protocol == IPPROTO_UDP)  // the port is its own, and so is an address that it was bound to
    return sk->state == TCP_ESTABLISHED && has_address(row->local) ? show(context, row->local, __builtin_bswap16(context->user_port), six) : 1;
  return row->local_port ? show(context, row->local, row->local_port, six) : 1;
}
SEC("cgroup/getpeername4")
int mishap_peer4(struct bpf_sock_addr *context) { return show_peer(context, false); }
SEC("cgroup/getpeername6")
int mishap_peer6(struct bpf_sock_addr *context) { return show_peer(context, true); }
SEC("cgroup/getsockname4")
int mishap_local4(struct bpf_sock_addr *context) { return show_local(context, false); }
SEC("cgroup/getsockname6")
int mishap_local6(struct bpf_sock_addr *context) { return show_local(context, true); }
