// listSockets(): every TCP and UDP socket of this network namespace, from the kernel's sock_diag; needs no rights.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "contract/types.h"
#include "exports.h"

namespace mishap {
namespace {

// Linux's TCP states (include/net/tcp_states.h), by number; UDP uses established and close.
constexpr const char* kStates[] = {"unknown",   "established", "syn_sent",   "syn_recv", "fin_wait1", "fin_wait2",
                                   "time_wait", "close",       "close_wait", "last_ack", "listen",    "closing",
                                   "new_syn_recv"};
constexpr u32 kStateCount = sizeof(kStates) / sizeof(kStates[0]);

Napi::Object end_of(Napi::Env env, u8 family, const void* address, u16 port_big_endian) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(family, address, text, sizeof(text));
  Napi::Object result = Napi::Object::New(env);
  result["address"] = static_cast<const char*>(text);
  result["port"] = Napi::Number::New(env, ntohs(port_big_endian));
  return result;
}

Napi::Object describe_socket(Napi::Env env, const inet_diag_msg& message, u8 protocol) {
  Napi::Object socket = Napi::Object::New(env);
  socket["protocol"] = protocol == IPPROTO_TCP ? "tcp" : "udp";
  socket["family"] = message.idiag_family == AF_INET6 ? "ipv6" : "ipv4";
  socket["local"] = end_of(env, message.idiag_family, message.id.idiag_src, message.id.idiag_sport);
  socket["peer"] = end_of(env, message.idiag_family, message.id.idiag_dst, message.id.idiag_dport);
  socket["state"] = kStates[message.idiag_state < kStateCount ? message.idiag_state : 0];
  socket["inode"] = Napi::Number::New(env, message.idiag_inode);
  const u64 cookie = static_cast<u64>(message.id.idiag_cookie[1]) << 32 | message.id.idiag_cookie[0];
  socket["cookie"] = Napi::BigInt::New(env, cookie);
  return socket;
}

// Dumps one family and protocol into `sockets`. Returns errno; 0 also where the kernel lacks that protocol's part.
int dump(Napi::Env env, int netlink, u8 family, u8 protocol, Napi::Array sockets) {
  struct {
    nlmsghdr header;
    inet_diag_req_v2 request;
  } message = {};
  message.header.nlmsg_len = sizeof(message);
  message.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  message.request.sdiag_family = family;
  message.request.sdiag_protocol = protocol;
  message.request.idiag_states = ~0u;
  if (send(netlink, &message, sizeof(message), 0) < 0) return errno;

  std::vector<char> buffer(32768);  // what the kernel fills a dump's message with
  for (;;) {
    const ssize_t received = recv(netlink, buffer.data(), buffer.size(), 0);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0) return errno;
    auto left = static_cast<unsigned>(received);
    for (auto* part = reinterpret_cast<nlmsghdr*>(buffer.data()); NLMSG_OK(part, left); part = NLMSG_NEXT(part, left)) {
      if (part->nlmsg_type == NLMSG_DONE) return 0;
      if (part->nlmsg_type == NLMSG_ERROR) {
        const int error = -reinterpret_cast<nlmsgerr*>(NLMSG_DATA(part))->error;
        return error == ENOENT ? 0 : error;
      }
      if (part->nlmsg_len < NLMSG_LENGTH(sizeof(inet_diag_msg))) continue;
      inet_diag_msg socket;
      memcpy(&socket, NLMSG_DATA(part), sizeof(socket));
      sockets[sockets.Length()] = describe_socket(env, socket, protocol);
    }
  }
}

}  // namespace

Napi::Value list_sockets(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const int netlink = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (netlink < 0) throw system_error(env, errno, "socket", "could not ask the kernel for its sockets");
  Napi::Array sockets = Napi::Array::New(env);
  int error = 0;
  for (u8 protocol : {IPPROTO_TCP, IPPROTO_UDP})
    for (u8 family : {AF_INET, AF_INET6})
      if (!error) error = dump(env, netlink, family, protocol, sockets);
  close(netlink);
  if (error) throw system_error(env, error, "recv", "could not list the kernel's sockets");
  return sockets;
}

// socketPair(): Node has pipes to its children only, which end with them.
Napi::Value socket_pair(const Napi::CallbackInfo& info) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw system_error(info.Env(), errno, "socketpair", "no socket could be made");
  Napi::Array pair = Napi::Array::New(info.Env(), 2);
  pair.Set(0u, Napi::Number::New(info.Env(), ends[0]));
  pair.Set(1u, Napi::Number::New(info.Env(), ends[1]));
  return pair;
}

}  // namespace mishap
