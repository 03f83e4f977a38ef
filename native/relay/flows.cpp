// Flows of connections that were handed over; see flows.h.
#include "flows.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <string>

#include "segment/words.h"

namespace mishap::relay {
namespace {

constexpr size_t kMostThreads = 16384;  // kept by name
constexpr u64 kUnnumbered = 4;          // Header::determinism

void write_path(char path[40], const std::string& text) { snprintf(path, 40, "%s", text.c_str()); }

bool is_gone(u64 process) { return kill(pid_of(process), 0) != 0 && errno == ESRCH; }

bool anybody_registered(const Segment& segment) {
  for (u32 i = 0; i < segment.count.processes; i++)
    if (load(&segment.processes[i].state) != static_cast<u32>(ProcessState::Free)) return true;
  return false;
}

}  // namespace

bool kernel_owner(const KernelSocket* sockets, const RelayConnect& connect, Owner* out) {
  if (connect.row >= MISHAP_KERNEL_SOCKETS) return false;
  const KernelSocket* row = &sockets[connect.row];
  copy_words(out, &row->owner);
  fence_acquire();
  return out->cookie == connect.cookie && load(&row->owner.cookie) == connect.cookie;
}

Threads::Known* Threads::process_of(const Segment& segment, const RelayConnect& connect) {
  auto [found, fresh] = processes_.try_emplace(connect.process);
  Known* known = &found->second;
  if (!fresh) return known;
  if (const Process* row = find_process(segment, connect.pid, static_cast<u32>(connect.process))) {
    memcpy(known->path, row->lineage, sizeof(known->path));
    known->path[sizeof(known->path) - 1] = 0;
  } else if (!anybody_registered(segment)) {
    write_path(known->path, numbered_ ? "0/" + std::to_string(numbered_) : "0");
    numbered_++;
  } else {  // among processes that are numbered by their parents, one that was not
    write_path(known->path, "0/?" + std::to_string(++numbered_));
    __atomic_fetch_or(&segment.header->determinism, kUnnumbered, __ATOMIC_RELAXED);
  }
  return known;
}

// Forgets the threads of processes that are gone, or all when that does not help.
void Threads::make_room() {
  std::erase_if(processes_, [](const auto& entry) { return is_gone(entry.first); });
  std::erase_if(threads_, [&](const auto& entry) { return !processes_.contains(entry.first.first); });
  if (threads_.size() >= kMostThreads) threads_.clear();
}

Naming* Threads::of(const Segment& segment, const RelayConnect& connect) {
  if (threads_.size() >= kMostThreads) make_room();
  auto [found, fresh] = threads_.try_emplace({connect.process, connect.tid});
  if (fresh) {
    Known* process = process_of(segment, connect);
    const u32 before = process->threads++;
    write_path(found->second.path, before ? std::string(process->path) + "." + std::to_string(before) : process->path);
    if (before) __atomic_fetch_or(&segment.header->determinism, kUnnumbered, __ATOMIC_RELAXED);  // another time they may race
  }
  return &found->second;
}

engine::Resolution resolve_flow(const Segment& segment, Flow* flow, const engine::Names& names, Caller caller, engine::Wants* wants) {
  const engine::Resolution found = engine::resolve(segment, *flow, names, caller);
  if (found.policy != load(&flow->policy)) {
    fold_flow(segment, flow);
    store(&flow->policy, found.policy);
  }
  *wants = engine::wants(segment, flow);
  if (wants->recv_limit_ns) count_fallback(segment, Fallback::Unsupported);  // no receive can be given up from outside
  return found;
}

Flow* open_flow_for(const Segment& segment, const KernelSocket* sockets, const RelayConnect& connect, Role role, u16 port, const char* host, Naming* thread, u64 now_ns) {
  const Protocol protocol = role == Role::Datagram ? Protocol::Udp : Protocol::Tcp;
  const engine::Identity id = engine::identify(segment, {protocol, role, host, connect.peer, port}, thread->path, thread->flows);
  Owner owner = {};
  const bool seen = kernel_owner(sockets, connect, &owner);
  if (!seen) {
    owner.pid = connect.pid;
    owner.created_ns = now_ns;
    owner.fd = -1;
  }
  owner.cookie = connect.cookie;
  if (!seen || owner.tid == 0) {  // whose nobody says it is, is whose who connects it
    owner.process = connect.process;
    owner.tid = connect.tid;
  }
  owner.bound_policy = -1;
  if (const Owner* said = find_owner(segment, connect.cookie)) {  // bound by its descriptor, say
    owner.bound_policy = load(&said->bound_policy);
    owner.process = load(&said->process);
    owner.tid = load(&said->tid);
  }
  owner.source = static_cast<u32>(OwnerSource::Kernel);
  owner.role = static_cast<u32>(role);

  FlowOpening opening = {};
  opening.cookie = connect.cookie;
  opening.key = id.key;
  opening.name_hash = engine::hash_name(host);
  opening.role = role;
  opening.protocol = protocol;
  opening.peer_port = connect.peer_port;
  memcpy(opening.peer, connect.peer, sizeof(opening.peer));
  opening.ordinal = id.ordinal;
  opening.pid = connect.pid;
  opening.bound_policy = owner.bound_policy;
  opening.owner = {owner.process, owner.tid};
  bool fresh;
  Flow* flow = open_flow(segment, opening, &fresh);
  if (!flow) return nullptr;
  if (!fresh) {  // the same socket, a new conversation (a second connect): its draws start anew
    store(&flow->key, id.key);
    store(&flow->peer_port, connect.peer_port);
    memcpy(flow->peer, connect.peer, sizeof(flow->peer));
    store(&flow->state, static_cast<u8>(FlowState::Open));
    engine::forget_answers(flow);
  }
  publish_owner(segment, owner);
  engine::announce(segment, id);
  return flow;
}

void own_socket(const Segment& segment, const RelayConnect& from, Role role, int fd, u64 now_ns) {
  Owner owner = {};
  socklen_t length = sizeof(owner.cookie);
  if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &owner.cookie, &length) != 0) return;
  owner.process = from.process;
  owner.pid = from.pid;
  owner.tid = from.tid;
  owner.fd = owner.bound_policy = -1;
  owner.source = static_cast<u32>(OwnerSource::Kernel);
  owner.role = static_cast<u32>(role);
  owner.created_ns = now_ns;
  publish_owner(segment, owner);
}

}  // namespace mishap::relay
