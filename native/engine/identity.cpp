// Identities in words; see identity.h.
#include "engine/identity.h"

#include <string.h>

#include "engine/engine.h"

namespace mishap::engine {
namespace {

constexpr u64 kHashPeer = 1, kHashFlow = 2;
constexpr u32 kPeerEnd = 48;  // where a peer's name is cut off

void text(char* to, u32 capacity, u32* n, const char* from) {
  while (*from && *n + 1 < capacity) to[(*n)++] = *from++;
  to[*n] = 0;
}
void number(char* to, u32 capacity, u32* n, u64 value, u32 base = 10) {
  char digits[24];
  u32 d = sizeof(digits);
  digits[--d] = 0;
  do digits[--d] = "0123456789abcdef"[value % base];
  while (value /= base);
  text(to, capacity, n, digits + d);
}
void address_text(char* to, u32 capacity, u32* n, const u8 a[16]) {
  constexpr u8 mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (memcmp(a, mapped, 12) == 0) {
    for (u32 i = 12; i < 16; i++) {
      if (i > 12) text(to, capacity, n, ".");
      number(to, capacity, n, a[i]);
    }
    return;
  }
  text(to, capacity, n, "[");
  for (u32 i = 0; i < 16; i += 2) {
    if (i) text(to, capacity, n, ":");
    number(to, capacity, n, static_cast<u64>(a[i] << 8 | a[i + 1]), 16);
  }
  text(to, capacity, n, "]");
}

const char* protocol_word(Protocol protocol, Role role) {
  if (role == Role::Resolver) return "dns";
  switch (protocol) {
    case Protocol::Udp: return "udp";
    case Protocol::Unix: return "unix";
    default: return "tcp";
  }
}

// Ports from here on are given out to whoever asks for any (ip_local_port_range), and are others in each run.
constexpr u16 kPassingPorts = 32768;

// Whether a peer's port says nothing another run could meet again; `peer` is its words, src/recording/passing-ports.ts its twin.
bool is_passing(const Segment& segment, const char* peer, u16 port) {
  if (port < kPassingPorts || !(load(&segment.header->flags) & kHeaderPortless)) return false;
  return strncmp(peer, "127.", 4) == 0 || strcmp(peer, "localhost") == 0 || strcmp(peer, "[0:0:0:0:0:0:0:1]") == 0 || strcmp(peer, "listen") == 0;
}

// `:PORT` behind a peer, or `:*` where it passes.
void port_text(const Segment& segment, char* words, u32 capacity, u32* n, u32 peer_at, u16 port) {
  const bool passing = is_passing(segment, words + peer_at, port);
  text(words, capacity, n, passing ? ":*" : ":");
  if (!passing) number(words, capacity, n, port);
}

}  // namespace

Identity identify(const Segment& segment, const FlowName& name, const char* thread_path, u16 ordinals[kFlowKinds]) {
  Identity id = {};
  u32 n = 0;
  text(id.words, sizeof(id.words), &n, protocol_word(name.protocol, name.role));
  text(id.words, sizeof(id.words), &n, ":");
  const u32 peer_at = n;
  if (name.role == Role::Acceptor) text(id.words, sizeof(id.words), &n, "listen");
  else if (name.protocol == Protocol::Unix || name.peer[0]) text(id.words, kPeerEnd, &n, name.peer);
  else address_text(id.words, kPeerEnd, &n, name.address);
  if (name.role == Role::Acceptor || name.protocol != Protocol::Unix) port_text(segment, id.words, sizeof(id.words), &n, peer_at, name.port);
  const u64 kind = hash_bytes(kHashPeer, id.words, n);
  id.ordinal = ++ordinals[kind % kFlowKinds];
  text(id.words, sizeof(id.words), &n, "#");
  number(id.words, sizeof(id.words), &n, id.ordinal);
  text(id.words, sizeof(id.words), &n, "@");
  text(id.words, sizeof(id.words), &n, thread_path);
  id.key = hash_bytes(kHashFlow, id.words, n);
  return id;
}

u64 hash_name(const char* host) { return host[0] ? hash_bytes(kHashPeer, host, strlen(host)) : 0; }

Flow* open_lookup_flow(const Segment& segment, const char* host, i32 policy, const char* process_path, i32 pid, char words[88]) {
  constexpr u64 kNameFlow = 1ull << 63;
  constexpr u32 kHostEnd = 60;  // where a name is cut off
  Identity id = {};
  u32 n = 0;
  text(id.words, sizeof(id.words), &n, "dns:");
  for (; *host && n < kHostEnd; host++) id.words[n++] = *host >= 'A' && *host <= 'Z' ? static_cast<char>(*host + 32) : *host;
  text(id.words, sizeof(id.words), &n, "@");
  text(id.words, sizeof(id.words), &n, process_path);
  id.key = hash_bytes(0, id.words, n);
  memcpy(words, id.words, sizeof(id.words));
  FlowOpening opening = {};
  opening.cookie = hash_bytes(static_cast<u64>(pid), id.words, n) | kNameFlow;
  opening.key = id.key;
  opening.role = Role::Resolver;
  opening.protocol = Protocol::Dns;
  opening.pid = pid;
  opening.bound_policy = -1;
  bool fresh;
  Flow* flow = open_flow(segment, opening, &fresh);
  if (!flow) return nullptr;
  store(&flow->policy, policy);
  if (fresh) announce(segment, id);
  return flow;
}

void announce(const Segment& segment, const Identity& id) {
  if (!(load(&segment.header->flags) & kHeaderJournal)) return;
  Event event = {};
  event.kind = static_cast<u8>(EventKind::FlowOpened);
  event.key = id.key;
  memcpy(event.flow, id.words, sizeof(event.flow));
  push_event(segment, event);
}

}  // namespace mishap::engine
