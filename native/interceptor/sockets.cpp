// Descriptors, sockets and flows: which descriptor is which socket, which flow that is, and which policy holds for it.
//
// One byte a descriptor says unknown, foreign or ours; a Socket is what this process knows of one of its own, shared by
// its duplicates; the Flow behind it lives in the segment, keyed by cookie, shared by every process that has the socket.
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/draw.h"
#include "interceptor.h"
#include "wire/client_hello.h"
#include "wire/sock_diag.h"

namespace mishap {

Socket** pages[kDescriptors / kDescriptorsPerPage];

namespace {

Socket** slot_of(int fd, bool make) {
  if (static_cast<u32>(fd) >= kDescriptors) return nullptr;
  Socket*** page = &pages[static_cast<u32>(fd) / kDescriptorsPerPage];
  Socket** found = load_acquire(page);
  if (!found && make) {
    void* fresh = map_buffer(kDescriptorsPerPage * sizeof(Socket*));
    if (!fresh) return nullptr;
    if (swap_if(page, static_cast<Socket**>(nullptr), static_cast<Socket**>(fresh))) found = static_cast<Socket**>(fresh);
    else {
      unmap_buffer(static_cast<u8*>(fresh), kDescriptorsPerPage * sizeof(Socket*));
      found = load_acquire(page);
    }
  }
  return found ? &found[static_cast<u32>(fd) % kDescriptorsPerPage] : nullptr;
}

// Sockets come from chunks that are never given back; a free one has refs 0.
constexpr u32 kChunk = 64, kChunks = 1024;
Socket* chunks[kChunks];

Socket* take_socket() {
  for (u32 c = 0; c < kChunks; c++) {
    Socket* chunk = load_acquire(&chunks[c]);
    if (!chunk) {
      Socket* fresh = reinterpret_cast<Socket*>(map_buffer(kChunk * sizeof(Socket)));
      if (!fresh) return nullptr;
      if (swap_if(&chunks[c], static_cast<Socket*>(nullptr), fresh)) chunk = fresh;
      else {
        unmap_buffer(reinterpret_cast<u8*>(fresh), kChunk * sizeof(Socket));
        chunk = load_acquire(&chunks[c]);
      }
    }
    for (u32 i = 0; i < kChunk; i++)
      if (load(&chunk[i].refs) == 0 && swap_if(&chunk[i].refs, 0u, 1u)) {
        u8* rest = reinterpret_cast<u8*>(&chunk[i]);
        memset(rest, 0, offsetof(Socket, refs));
        memset(rest + offsetof(Socket, refs) + sizeof(u32), 0, sizeof(Socket) - offsetof(Socket, refs) - sizeof(u32));
        chunk[i].policy = chunk[i].bound_policy = -1;
        return &chunk[i];
      }
  }
  count(Fallback::TableFull);
  return nullptr;
}

constexpr u32 kBeingReleased = ~0u;  // neither anybody's nor free to be taken

void release_socket(Socket* socket) {
  for (;;) {
    const u32 refs = load(&socket->refs);
    if (!swap_if(&socket->refs, refs, refs == 1 ? kBeingReleased : refs - 1)) continue;
    if (refs != 1) return;
    break;
  }
  if (socket->hello) unmap_buffer(socket->hello, 4096);
  free_link(socket);
  for (u32 d = 0; d < kDirections; d++)
    while (Held* held = socket->held[d]) {
      socket->held[d] = held->next;
      count_held(socket, static_cast<Direction>(d), -static_cast<i64>(held->bytes));
      account_for(socket, static_cast<Direction>(d), Account::Cut, held->bytes);
      free_held(held);
    }
  if (socket->flow) store(&socket->flow->state, static_cast<u8>(FlowState::Idle));
  store_release(&socket->refs, 0u);
}

int option(int fd, int name) {
  int value = -1;
  socklen_t length = sizeof(value);
  return real.getsockopt(fd, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
}

bool ours(int family, int type) {
  type &= ~(SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (family == AF_INET || family == AF_INET6) return type == SOCK_STREAM || type == SOCK_DGRAM;
  return family == AF_UNIX && (load(&self.segment.header->flags) & kHeaderUnix);
}

void attach_socket(int fd, Socket* socket) {
  Socket** slot = slot_of(fd, true);
  if (!slot) return;
  store_release(slot, socket);
  store_release(&kinds[fd], static_cast<u8>(Kind::Socket));
}

bool foreign_by_nature(int fd) {
  if (static_cast<u32>(fd) >= kDescriptors) return true;
  store(&kinds[fd], static_cast<u8>(Kind::Foreign));
  return true;
}

// Somebody may have said whose a socket is: by binding its descriptor, or in another process, before it came here. Who made
// it the kernel knows better. But what was accepted stays with its listener's owner, and what was given to nobody with none.
void take_owner(Socket* socket) {
  const Owner* said = find_owner(self.segment, socket->cookie);
  if (said) {
    socket->bound_policy = load(&said->bound_policy);
    socket->owner = {load(&said->process), load(&said->tid)};
  }
  const bool accepted = socket->accepted || (said && load(&said->role) == static_cast<u32>(Role::Acceptor));
  Owner seen;
  if (accepted || (said && socket->owner.tid == 0) || !kernel_owner(socket->cookie, &seen)) return;
  if (seen.tid) socket->owner = {seen.process, seen.tid};
}

bool may_be_ours_unseen(int fd) {
  const int kept = errno;
  const int family = option(fd, SO_DOMAIN);
  const bool found = family >= 0 && ours(family, option(fd, SO_TYPE));
  errno = kept;
  return found;
}

// A connection that was made past us went to the relay, where there is one: what is done to it is done there.
bool left_to_relay(int fd, Socket* socket) {
  if (!carried_by_relay(socket->cookie)) return false;
  forget(fd);
  return foreign_by_nature(fd);
}

// A descriptor met for the first time: inherited, received, or opened before us.
Socket* look_at(int fd) {
  int kept = errno;
  int family = option(fd, SO_DOMAIN), type = family < 0 ? -1 : option(fd, SO_TYPE);
  Socket* socket = nullptr;
  if (family < 0 && errno == EBADF) {
    errno = kept;
    return nullptr;
  }
  if (type < 0 || !ours(family, type)) foreign_by_nature(fd);
  else {
    note_socket(fd, family, type);
    Socket** slot = slot_of(fd, false);
    socket = slot ? load_acquire(slot) : nullptr;
    if (socket) {
      socket->listening = option(fd, SO_ACCEPTCONN) == 1;
      if (socket->listening) claim_listener(fd);
      socket->cookie = cookie_of(fd);
      if (left_to_relay(fd, socket)) {
        errno = kept;
        return nullptr;
      }
      take_owner(socket);
      // A flow that another process of the project opened goes on with its state.
      socket->flow = find_flow(self.segment, socket->cookie);
      if (!socket->flow && socket->stream && !socket->listening) {
        sockaddr_storage peer;
        socklen_t length = sizeof(peer);
        if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0) open_accepted(fd, -1);
      }
    }
  }
  errno = kept;
  return socket;
}

engine::Identity identify(const Socket& socket, Role role, const Endpoint& peer, const char* host) {
  const auto protocol = static_cast<Protocol>(socket.protocol);
  const u16 port = role == Role::Acceptor ? socket.local_port : peer.port;
  name_thread();
  return engine::identify(self.segment, {protocol, role, protocol == Protocol::Unix ? socket.path : host, peer.address, port}, thread.path, thread.flows);
}

bool open_flow_as(int fd, Socket* socket, Role role, const Endpoint& peer) {
  if (!socket->cookie) socket->cookie = cookie_of(fd);
  if (!socket->cookie) return false;
  char host[256] = "";
  if (peer.known) name_of(peer.address, host, sizeof(host));
  engine::Identity id = identify(*socket, role, peer, host);
  FlowOpening opening = {};
  opening.cookie = socket->cookie;
  opening.key = id.key;
  opening.name_hash = engine::hash_name(host);
  opening.role = role;
  opening.protocol = static_cast<Protocol>(socket->protocol);
  opening.peer_port = peer.port;
  memcpy(opening.peer, peer.address, sizeof(opening.peer));
  opening.ordinal = id.ordinal;
  opening.pid = self.pid;
  take_owner(socket);
  opening.bound_policy = socket->bound_policy;
  opening.owner = socket->owner;
  bool fresh;
  Flow* flow = open_flow(self.segment, opening, &fresh);
  if (!flow) return false;
  if (!fresh) {  // the same socket, a new conversation (a second connect): its draws start anew
    store(&flow->key, id.key);
    store(&flow->peer_port, peer.port);
    memcpy(flow->peer, peer.address, sizeof(flow->peer));
    store(&flow->state, static_cast<u8>(FlowState::Open));
    engine::forget_answers(flow);
  }
  socket->flow = flow;
  memcpy(socket->identity, id.words, sizeof(socket->identity));
  socket->generation = socket->calm_generation = socket->quiet_generation = socket->settled_generation = 0;
  socket->ended = false;
  Owner owner = {};
  owner.cookie = socket->cookie;
  owner.process = socket->owner.process;
  owner.pid = self.pid;
  owner.tid = socket->owner.tid;
  owner.fd = fd;
  owner.bound_policy = socket->bound_policy;
  owner.source = static_cast<u32>(OwnerSource::Interceptor);
  owner.role = static_cast<u32>(role);
  owner.created_ns = now_ns();
  if (Owner seen; kernel_owner(socket->cookie, &seen) && seen.process == owner.process && seen.tid == owner.tid) {
    owner.source = static_cast<u32>(OwnerSource::Kernel);
    owner.pid = seen.pid;
    owner.created_ns = seen.created_ns;
    owner.cgroup = seen.cgroup;
  }
  publish_owner(self.segment, owner);
  engine::announce(self.segment, id);
  return true;
}

void resolve_policy(int fd, Socket* socket) {
  socket->generation = load(&self.segment.header->generation);
  Flow* flow = socket->flow;
  char host[256] = "";
  if (load(&self.segment.header->flags) & kHeaderNames) name_of(flow->peer, host, sizeof(host));
  engine::Resolution found = engine::resolve(self.segment, *flow, {host, socket->sni, socket->path}, caller());
  socket->by_caller = found.by_caller;
  socket->resolved_for = found.by_caller ? thread_id() : 0;
  socket->wants_sni = found.wants_sni && socket->sni_bytes < 4096;
  if (found.policy != load(&flow->policy)) {
    fold_flow(self.segment, flow);
    store(&flow->policy, found.policy);
  }
  socket->policy = found.policy;
  if (self.scripted && found.policy >= 0 && !socket->resolver) {
    ask_about_flow(socket);
    // The name in a ClientHello is news to it.
    const bool client = socket->stream && load(&flow->role) == static_cast<u8>(Role::Connector) && socket->family != AF_UNIX;
    socket->wants_sni |= client && socket->sni_bytes < 4096 && engine::asks_script(self.segment, found.policy, kAsksFlow | kAsksOps);
  }
  if (found.policy > 1 && !engine::keeps_rows()) keep_rows();
  socket->wants = engine::wants(self.segment, flow);
  // Calm: nothing is asked of it now, and nothing would be if a datagram went to another peer.
  bool calm = found.policy >= 0 ? !socket->wants.anything
                                : socket->stream || engine::policy_of(self.segment, *flow, caller(), &found.by_caller) < 0;
  calm = calm && !socket->by_caller && !socket->wants_sni && !socket->resolver && !socket->held[0] && !socket->held[1];
  socket->calm_generation = calm && !self.counted ? socket->generation : 0;
  socket->quiet_generation = calm && self.counted ? socket->generation : 0;
  claim_flow(fd, socket);
  bool link = found.policy >= 0 && !socket->resolver && ((socket->stream ? socket->wants.delays : socket->wants.dated) || socket->wants.holds);
  if (link && !socket->linked) begin_link(fd, socket);
  else if (!link && socket->linked) end_link(socket);
  socket->settled_generation = found.policy >= 0 && !socket->by_caller && !socket->wants_sni && !socket->resolver ? socket->generation : 0;
}

bool local_address(const Endpoint& a, const Endpoint& b) {
  constexpr u8 loopback4[13] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127};
  constexpr u8 loopback6[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  return memcmp(a.address, b.address, 16) == 0 || memcmp(a.address, loopback4, 13) == 0 || memcmp(a.address, loopback6, 16) == 0;
}

bool named_endpoint(int fd, bool peer, Endpoint* out) {
  sockaddr_storage address;
  socklen_t length = sizeof(address);
  int result = peer ? getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) : getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return result == 0 && endpoint_of(reinterpret_cast<sockaddr*>(&address), length, out);
}

bool owned_by_project(u64 cookie) { return cookie && find_owner(self.segment, cookie); }

constexpr u16 kDnsPort = 53;

struct KnownSender {
  u64 key;
  bool inside;
};
constexpr u32 kKnownSenders = 64;
thread_local constinit KnownSender known_senders[kKnownSenders] = {};

}  // namespace

u64 cookie_of(int fd) {
  u64 cookie = 0;
  socklen_t length = sizeof(cookie);
  return real.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) == 0 ? cookie : 0;
}

bool endpoint_of(const sockaddr* address, socklen_t length, Endpoint* out) {
  *out = {};
  if (address && length >= sizeof(sockaddr_in) && address->sa_family == AF_INET) {
    const sockaddr_in* in = reinterpret_cast<const sockaddr_in*>(address);
    out->address[10] = out->address[11] = 0xff;
    memcpy(out->address + 12, &in->sin_addr, 4);
    out->port = ntohs(in->sin_port);
    out->known = true;
  } else if (address && length >= sizeof(sockaddr_in6) && address->sa_family == AF_INET6) {
    const sockaddr_in6* in = reinterpret_cast<const sockaddr_in6*>(address);
    memcpy(out->address, &in->sin6_addr, 16);
    out->port = ntohs(in->sin6_port);
    out->known = true;
  }
  return out->known;
}

Socket* socket_of(int fd) {
  if (!self.ready || static_cast<u32>(fd) >= kDescriptors) return nullptr;
  if (!self.attached) {
    foreign_by_nature(fd);
    return nullptr;
  }
  if (load_acquire(&kinds[fd]) == static_cast<u8>(Kind::Unknown)) return getpid() == self.pid ? look_at(fd) : nullptr;
  Socket** slot = slot_of(fd, false);
  Socket* socket = slot ? load_acquire(slot) : nullptr;
  if (!socket || !self.counted || !closed_behind_us(*socket) || getpid() != self.pid) return socket;
  count(Fallback::StaleDescriptor);
  forget(fd);
  return look_at(fd);
}

void note_socket(int fd, int family, int type) {
  if (!self.attached || static_cast<u32>(fd) >= kDescriptors || getpid() != self.pid) return;
  forget(fd);
  if (!ours(family, type)) {
    foreign_by_nature(fd);
    return;
  }
  Socket* socket = take_socket();
  if (!socket) return;
  socket->owner = caller();
  socket->bound_policy = static_cast<i32>(thread.entered) - 1;
  int bare = type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK);
  socket->family = static_cast<u8>(family);
  socket->stream = bare != SOCK_DGRAM;
  socket->protocol = static_cast<u8>(family == AF_UNIX ? Protocol::Unix : socket->stream ? Protocol::Tcp : Protocol::Udp);
  attach_socket(fd, socket);
}

void note_copy(int from, int to) {
  if (!self.attached || static_cast<u32>(to) >= kDescriptors) return;
  bool matters = load(&kinds[to]) == static_cast<u8>(Kind::Socket) || (static_cast<u32>(from) < kDescriptors && load(&kinds[from]) == static_cast<u8>(Kind::Socket));
  if (matters && getpid() != self.pid) return;  // a vfork child shares our tables, not our descriptors
  forget(to);
  if (static_cast<u32>(from) >= kDescriptors) return;
  copy_epoll(from, to);
  u8 kind = load(&kinds[from]);
  Socket** slot = kind == static_cast<u8>(Kind::Socket) ? slot_of(from, false) : nullptr;
  Socket* socket = slot ? load_acquire(slot) : nullptr;
  if (!socket) return;
  __atomic_fetch_add(&socket->refs, 1, __ATOMIC_ACQ_REL);
  attach_socket(to, socket);
  adopt_standard_stream(to);
}

void forget(int fd) {
  if (static_cast<u32>(fd) >= kDescriptors) return;
  u8 kind = load(&kinds[fd]);
  if (kind == static_cast<u8>(Kind::Unknown)) return;
  if (kind == static_cast<u8>(Kind::Socket)) {
    if (getpid() != self.pid) return;
    Socket** slot = slot_of(fd, false);
    Socket* socket = slot ? __atomic_exchange_n(slot, nullptr, __ATOMIC_ACQ_REL) : nullptr;
    if (socket) leave_epoll(fd, socket, false);
    if (socket) release_socket(socket);
  } else {
    forget_epoll(fd);
  }
  store(&kinds[fd], static_cast<u8>(Kind::Unknown));
}

bool still_ours(int fd, Socket* socket) {
  int kept = errno;
  bool same = cookie_of(fd) == socket->cookie;
  errno = kept;
  if (same) return true;
  count(Fallback::StaleDescriptor);
  forget(fd);
  return false;
}

void drop_inherited_holds() {
  for (Socket* chunk : chunks)
    for (u32 i = 0; chunk && i < kChunk; i++)
      for (Held*& list : chunk[i].held)
        while (Held* held = list) {  // they are the parent's to send
          list = held->next;
          free_held(held);
        }
  self.held = 0;
}

void count_straight(int fd, Direction direction, i64 bytes) {
  Socket* socket = self.counted && bytes >= 0 ? noted_socket(fd) : nullptr;
  if (!socket || !socket->flow) return;
  count_op(side_of(socket->flow, direction));
  count_called(socket->flow, direction, bytes);
}

static_assert(sizeof(Event::flow) == kPayloadBytes);
void record_payload(const Socket& socket, OpKind kind, const iovec* parts, int count, i64 bytes) {
  if (bytes <= 0 || !(load(&self.segment.header->flags) & kHeaderRecordPayload)) return;
  const Flow* flow = socket.flow;
  if (!flow || socket.policy < 0 || load(&flow->carried_by_peer)) return;
  const u64 total = static_cast<u64>(bytes) < length_of(parts, count) ? static_cast<u64>(bytes) : length_of(parts, count);
  const int kept = errno;
  u64 patience_ns = kRoomPatienceNs;
  Event event = {};
  event.key = load(&flow->key);
  event.kind = static_cast<u8>(EventKind::Payload);
  event.op = static_cast<u8>(kind);
  event.direction = static_cast<u8>(kind == OpKind::Send ? Direction::Uplink : Direction::Downlink);
  event.policy = static_cast<u16>(socket.policy);
  event.at_ns = now_ns();
  for (u64 done = 0; done < total; done += event.bytes) {
    event.offset = static_cast<u32>(done);
    event.bytes = static_cast<u32>(total - done < kPayloadBytes ? total - done : kPayloadBytes);
    gather(parts, count, done, reinterpret_cast<u8*>(event.flow), event.bytes);
    push_event(self.segment, event, &patience_ns);
  }
  errno = kept;
}

void note_local(int fd, Socket* socket) {
  Endpoint local;
  if (named_endpoint(fd, false, &local)) socket->local_port = local.port;
}

void open_connecting(int fd, Socket* socket, const sockaddr* to, socklen_t length) {
  Endpoint peer;
  endpoint_of(to, length, &peer);
  if (socket->family == AF_UNIX && length > offsetof(sockaddr_un, sun_path)) {
    const sockaddr_un* un = reinterpret_cast<const sockaddr_un*>(to);
    size_t size = length - offsetof(sockaddr_un, sun_path);
    bool abstract = un->sun_path[0] == 0;
    size_t n = 0;
    if (abstract) socket->path[n++] = '@';
    for (size_t i = abstract; i < size && un->sun_path[i] && n + 1 < sizeof(socket->path); i++) socket->path[n++] = un->sun_path[i];
    socket->path[n] = 0;
  }
  socket->resolver = socket->family != AF_UNIX && peer.port == kDnsPort;
  if (open_flow_as(fd, socket, socket->stream ? Role::Connector : Role::Datagram, peer)) resolve_policy(fd, socket);
}

// The accepting end. When the connecting end is a socket of this project, that end carries the flow's faults.
void open_accepted(int fd, int listener) {
  Socket** slot = slot_of(fd, false);
  Socket* socket = slot ? load_acquire(slot) : nullptr;
  if (!socket) return;
  socket->stream = true;
  if (Socket* from = listener >= 0 ? socket_of(listener) : nullptr) {  // what is accepted belongs to whose listener it is
    if (!from->cookie) from->cookie = cookie_of(listener);
    take_owner(from);
    socket->accepted = true;
    socket->bound_policy = from->bound_policy;
    socket->owner = from->owner;
  }
  Endpoint local = {}, peer = {};
  if (socket->family != AF_UNIX) {
    named_endpoint(fd, false, &local);
    named_endpoint(fd, true, &peer);
    socket->local_port = local.port;
  } else if (Socket* from = listener >= 0 ? socket_of(listener) : nullptr) {
    memcpy(socket->path, from->path, sizeof(socket->path));
  }
  if (!open_flow_as(fd, socket, Role::Acceptor, peer)) return;
  bool inside;
  if (socket->family == AF_UNIX) {
    ucred who;
    socklen_t length = sizeof(who);
    inside = real.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 && in_project(who.pid);
  } else {
    inside = local_address(peer, local) && owned_by_project(cookie_by_tuple(Protocol::Tcp, peer, local));
  }
  store(&socket->flow->carried_by_peer, static_cast<u8>(inside));
  resolve_policy(fd, socket);
}

bool faulted(int fd, Socket* socket, const sockaddr* to, socklen_t length) {
  if (socket->listening) return false;
  // Another process closed its last descriptor of the socket, and the flow's row may have been given away.
  if (Flow* flow = socket->flow; flow && load(&flow->state) == static_cast<u8>(FlowState::Idle)) {
    if (load(&flow->cookie) == socket->cookie) store(&flow->state, static_cast<u8>(FlowState::Open));
    else socket->flow = nullptr;
  }
  if (!socket->flow) {
    Endpoint peer = {};
    if (socket->stream) {
      if (!named_endpoint(fd, true, &peer) && socket->family != AF_UNIX) return false;  // not connected
      if (!socket->cookie) socket->cookie = cookie_of(fd);
      if (left_to_relay(fd, socket)) return false;
      if (!open_flow_as(fd, socket, Role::Acceptor, peer)) return false;
    } else {
      if (!endpoint_of(to, length, &peer)) named_endpoint(fd, true, &peer);
      if (!peer.known) note_local(fd, socket);
      socket->resolver = socket->family != AF_UNIX && peer.port == kDnsPort;
      if (!open_flow_as(fd, socket, Role::Datagram, peer)) return false;
    }
    resolve_policy(fd, socket);
  } else if (!socket->stream && to) {  // a datagram socket that talks to several peers: each is looked at
    Endpoint peer;
    if (endpoint_of(to, length, &peer) && (peer.port != socket->flow->peer_port || memcmp(peer.address, socket->flow->peer, 16))) {
      memcpy(socket->flow->peer, peer.address, 16);
      store(&socket->flow->peer_port, peer.port);
      socket->resolver = peer.port == kDnsPort;
      socket->generation = 0;
    }
  }
  const bool moved = socket->by_caller && socket->resolved_for != thread_id();
  if (moved || socket->generation != load(&self.segment.header->generation)) resolve_policy(fd, socket);
  return socket->policy >= 0;
}

bool may_be_ours(int fd) {
  if (!self.attached || static_cast<u32>(fd) >= kDescriptors) return false;
  const auto kind = static_cast<Kind>(load(&kinds[fd]));
  return kind == Kind::Socket || (kind == Kind::Unknown && may_be_ours_unseen(fd));
}

bool is_faulted(int fd) {
  Guard guard(fd);
  Socket* socket = guard && active() ? socket_of(fd) : nullptr;
  return socket && faulted(fd, socket, nullptr, 0);
}

void learn_sni(int fd, Socket* socket, const iovec* parts, int n) {
  if (!socket->hello) socket->hello = map_buffer(4096);
  if (!socket->hello) {
    socket->wants_sni = false;
    return;
  }
  u64 more = length_of(parts, n), room = 4096 - socket->sni_bytes;
  if (more > room) more = room;
  gather(parts, n, 0, socket->hello + socket->sni_bytes, more);
  socket->sni_bytes += static_cast<u32>(more);
  char name[256];
  auto found = wire::find_sni(socket->hello, socket->sni_bytes, name, sizeof(name));
  if (found == wire::SniResult::NeedMore && socket->sni_bytes < 4096) return;
  if (found == wire::SniResult::Found && strlen(name) < sizeof(socket->sni)) {
    memcpy(socket->sni, name, strlen(name) + 1);
    if (self.scripted && socket->flow) engine::forget_answers(socket->flow);
  }
  socket->wants_sni = false;
  socket->sni_bytes = 4096;
  unmap_buffer(socket->hello, 4096);
  socket->hello = nullptr;
  resolve_policy(fd, socket);
}

// Asked of the kernel once a sender: each thread remembers the last ones by a hash of them and the receiving socket.
bool sender_inside(int fd, Socket* socket, const sockaddr* from, socklen_t length) {
  u64 words[3] = {};  // family, port and address, as the kernel wrote them
  if (length == sizeof(sockaddr_in)) memcpy(words, from, 8);
  else if (length == sizeof(sockaddr_in6)) memcpy(words, from, 24);
  else return false;
  u64 key = socket->cookie ^ words[0];
  if (length != sizeof(sockaddr_in)) key = engine::mix(engine::mix(key) ^ words[1]) ^ words[2];
  key = engine::mix(key);
  KnownSender& known = known_senders[key % kKnownSenders];
  if (known.key == key) return known.inside;
  Endpoint sender, local;
  const bool inside = endpoint_of(from, length, &sender) && named_endpoint(fd, false, &local) && local_address(sender, local) &&
                      owned_by_project(cookie_by_tuple(Protocol::Udp, sender, local));
  known.key = 0;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  known.inside = inside;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  known.key = key;
  return inside;
}

void stamp_arrivals(int fd, Socket* socket) {
  socket->stamped = true;
  if (socket->family == AF_UNIX || socket->program_stamps) return;
  int kept = errno, on = 1;
  if (real.setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) == 0) store(&socket->flow->dated, u8{1});
  errno = kept;
}

// One question to the kernel's socket table over a netlink socket of our own: 37 us, asked once a connection or sender.
u64 cookie_by_tuple(Protocol protocol, const Endpoint& local, const Endpoint& peer) {
  wire::SocketQuestion question;
  wire::ask_for_socket(protocol, local.address, local.port, peer.address, peer.port, &question);

  int kept = errno;
  u64 cookie = 0;
  int fd = real.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (fd >= 0) {
    timeval patience = {0, 100000};
    real.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    alignas(8) u8 answer[1024];
    ssize_t n = -1;
    if (real.send(fd, &question, sizeof(question), 0) == sizeof(question)) n = real.recv(fd, answer, sizeof(answer), 0);
    cookie = wire::cookie_answered(answer, n);
    real.close(fd);
  }
  errno = kept;
  return cookie;
}

int errno_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Refused: return ECONNREFUSED;
    case ErrorKind::Unreachable: return EHOSTUNREACH;
    default: return ECONNRESET;
  }
}

int break_connection(int fd, Socket* socket, ErrorKind kind) {
  if (kind == ErrorKind::Reset && socket->stream && socket->family != AF_UNIX) {
    // connect(AF_UNSPEC) makes the kernel send a RST and leave this end as an arriving one would (tcp_disconnect).
    sockaddr none = {};
    none.sa_family = AF_UNSPEC;
    real.connect(fd, &none, sizeof(none));
    int error;
    socklen_t length = sizeof(error);
    real.getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    store(&socket->flow->state, static_cast<u8>(FlowState::Reset));
    end_arrivals(socket);
  }
  return errno_of(kind);
}

}  // namespace mishap
