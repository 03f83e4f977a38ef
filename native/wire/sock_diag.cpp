#include "sock_diag.h"

#include <arpa/inet.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/socket.h>

namespace mishap::wire {

void ask_for_socket(Protocol protocol, const u8 local[16], u16 local_port, const u8 peer[16], u16 peer_port, SocketQuestion* out) {
  *out = {};
  out->header.nlmsg_len = sizeof(*out);
  out->header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  out->header.nlmsg_flags = NLM_F_REQUEST;
  inet_diag_req_v2& request = out->request;
  request.sdiag_protocol = protocol == Protocol::Udp ? IPPROTO_UDP : IPPROTO_TCP;
  request.idiag_states = ~0u;
  request.id.idiag_cookie[0] = request.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  // A UDP look-up answers with the socket that a datagram of this tuple would reach, so there the sender is the destination.
  const bool udp = protocol == Protocol::Udp;
  constexpr u8 mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  const bool v4 = memcmp(local, mapped, sizeof(mapped)) == 0;
  request.sdiag_family = v4 ? AF_INET : AF_INET6;
  request.id.idiag_sport = htons(udp ? peer_port : local_port);
  request.id.idiag_dport = htons(udp ? local_port : peer_port);
  memcpy(request.id.idiag_src, (udp ? peer : local) + (v4 ? 12 : 0), v4 ? 4 : 16);
  memcpy(request.id.idiag_dst, (udp ? local : peer) + (v4 ? 12 : 0), v4 ? 4 : 16);
}

u64 cookie_answered(const void* answer, i64 size) {
  const auto* header = static_cast<const nlmsghdr*>(answer);
  if (size < static_cast<i64>(NLMSG_LENGTH(sizeof(inet_diag_msg))) || header->nlmsg_type != SOCK_DIAG_BY_FAMILY) return 0;
  const auto* found = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
  return found->id.idiag_cookie[0] | static_cast<u64>(found->id.idiag_cookie[1]) << 32;
}

}  // namespace mishap::wire
