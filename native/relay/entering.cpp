// How a client's connection meets the program that is to accept it: the relay connects to the program's listener, and the kernel
// says which socket came of it and whose it is. Only then is anything read: what the client sent waits in its socket.
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "address.h"
#include "connection.h"
#include "segment/words.h"

namespace mishap::relay {
namespace {

// What it takes at most until there is a socket to accept, unless the listener makes one only for the first bytes
// (TCP_DEFER_ACCEPT), or has no room for it: then the flow is known by the relay's own end.
constexpr u64 kMeetWithinNs = 10 * kMillisecond;

}  // namespace

void Connection::enter(int client, const Journey& journey) {
  phase_ = Phase::Entering;
  since_ns_ = now_ns();
  onward_.fd = client;
  from_.peer_port = endpoint_into(journey.client, from_.peer);
  from_.source_port = endpoint_into(journey.to, from_.source);
  from_.family = static_cast<u8>(journey.to.ss_family);
  program_.fd = shared_->sources.connect_from(journey, &source_port_);
  if (program_.fd < 0 || !watch(program_, Program)) reset();
}

// The program's kernel answered. Nobody listens any more: the client, connected already, finds its connection broken.
void Connection::entered(int error) {
  if (error) return reset();
  if (due_ns_ == kNever) meet(now_ns());
}

void Connection::meet(u64 now) {
  const RelaySource& source = shared_->sources.of(source_port_);
  const bool accepted = load_acquire(&source.accepted) != 0;
  if (!accepted && now < since_ns_ + kMeetWithinNs) {
    due_ns_ = now + kMillisecond;
    return;
  }
  due_ns_ = kNever;
  from_.cookie = load(&source.cookie);
  from_.row = load(&source.row);
  Owner owner = {};
  if (kernel_owner(shared_->sockets, from_, &owner)) {
    from_.process = owner.process;
    from_.pid = owner.pid;
    from_.tid = owner.tid;
  }
  if (!accepted) {
    from_.row = MISHAP_KERNEL_SOCKETS;
    socklen_t length = sizeof(from_.cookie);
    if (getsockopt(program_.fd, SOL_SOCKET, SO_COOKIE, &from_.cookie, &length) != 0) from_.cookie = 0;
  }
  Naming* thread = shared_->threads.of(shared_->segment, from_);
  flow_ = open_flow_for(shared_->segment, shared_->sockets, from_, Role::Acceptor, from_.source_port, shared_->names.of(from_.peer), thread, now);
  keep_policy();
  phase_ = Phase::Carrying;
  if (!watch(onward_, Onward)) reset();
}

}  // namespace mishap::relay
