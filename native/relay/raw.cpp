// RST and ICMP by hand; see raw.h.
#include "raw.h"

#include <arpa/inet.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

namespace mishap::relay {
namespace {

constexpr u8 kHops = 64;

// The Internet's checksum (RFC 1071), folded by checksum().
u32 sum(const void* bytes, size_t size, u32 before = 0) {
  const u8* p = static_cast<const u8*>(bytes);
  for (size_t i = 0; i < size; i += 2) before += static_cast<u32>(p[i] << 8 | (i + 1 < size ? p[i + 1] : 0));
  return before;
}
u16 checksum(u32 sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons(static_cast<u16>(~sum));
}

// What TCP and ICMPv6 sum up besides themselves. Both addresses are summed as they lie in the packet.
u32 pseudo_header(const void* source, const void* destination, size_t address_bytes, u32 protocol, u32 length) {
  return sum(destination, address_bytes, sum(source, address_bytes)) + protocol + length;
}

iphdr ipv4_header(u8 protocol, u32 source, u32 destination, size_t payload) {
  iphdr ip = {};
  ip.version = 4;
  ip.ihl = sizeof(ip) / 4;
  ip.ttl = kHops;
  ip.protocol = protocol;
  ip.saddr = source;
  ip.daddr = destination;
  ip.tot_len = htons(static_cast<u16>(sizeof(ip) + payload));
  ip.check = checksum(sum(&ip, sizeof(ip)));
  return ip;
}
ip6_hdr ipv6_header(u8 protocol, const in6_addr& source, const in6_addr& destination, size_t payload) {
  ip6_hdr ip = {};
  ip.ip6_flow = htonl(6u << 28);
  ip.ip6_plen = htons(static_cast<u16>(payload));
  ip.ip6_nxt = protocol;
  ip.ip6_hlim = kHops;
  ip.ip6_src = source;
  ip.ip6_dst = destination;
  return ip;
}

u32 ipv4_of(const u8 address[16]) {
  u32 word;
  memcpy(&word, address + 12, sizeof(word));
  return word;
}
in6_addr ipv6_of(const u8 address[16]) {
  in6_addr a;
  memcpy(&a, address, sizeof(a));
  return a;
}

// The program's SYN, as it went to the relay's port.
tcphdr syn_of(const RelayConnect& connect, u16 port) {
  tcphdr tcp = {};
  tcp.source = htons(connect.source_port);
  tcp.dest = htons(port);
  tcp.seq = htonl(connect.isn);
  tcp.doff = sizeof(tcp) / 4;
  tcp.syn = 1;
  return tcp;
}

void send_ipv4(int fd, const void* packet, size_t size, u32 destination) {
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = destination;
  sendto(fd, packet, size, MSG_DONTWAIT | MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to), sizeof(to));
}
void send_ipv6(int fd, const void* packet, size_t size, const in6_addr& destination) {
  sockaddr_in6 to = {};
  to.sin6_family = AF_INET6;
  to.sin6_addr = destination;
  sendto(fd, packet, size, MSG_DONTWAIT | MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to), sizeof(to));
}

// An ICMP message from the relay's address that quotes what a program's end sent there: its header is all the kernel looks at.
template <class Header>
void quote_ipv4(int fd, u32 source, u8 protocol, const Header& quoted, Unreachable what) {
  const u32 relay = htonl(INADDR_LOOPBACK);
  struct { iphdr ip; icmphdr icmp; iphdr quoted_ip; Header quoted; } packet = {};
  packet.ip = ipv4_header(IPPROTO_ICMP, relay, source, sizeof(packet) - sizeof(iphdr));
  packet.icmp.type = what.type;
  packet.icmp.code = what.code;
  packet.quoted_ip = ipv4_header(protocol, source, relay, sizeof(quoted));
  packet.quoted = quoted;
  packet.icmp.checksum = checksum(sum(&packet.icmp, sizeof(packet) - sizeof(iphdr)));
  send_ipv4(fd, &packet, sizeof(packet), source);
}
template <class Header>
void quote_ipv6(int fd, const in6_addr& source, u8 protocol, const Header& quoted, Unreachable what) {
  struct { ip6_hdr ip; icmp6_hdr icmp; ip6_hdr quoted_ip; Header quoted; } packet = {};
  constexpr u32 size = sizeof(packet) - sizeof(ip6_hdr);
  packet.ip = ipv6_header(IPPROTO_ICMPV6, in6addr_loopback, source, size);
  packet.icmp.icmp6_type = what.type;
  packet.icmp.icmp6_code = what.code;
  packet.quoted_ip = ipv6_header(protocol, source, in6addr_loopback, sizeof(quoted));
  packet.quoted = quoted;
  packet.icmp.icmp6_cksum = checksum(sum(&packet.icmp, size, pseudo_header(&in6addr_loopback, &source, 16, IPPROTO_ICMPV6, size)));
  send_ipv6(fd, &packet, sizeof(packet), source);
}

}  // namespace

bool over_ipv4(const RelayConnect& connect) { return connect.family == AF_INET || is_ipv4(connect.peer); }

Unreachable no_port(bool ipv4) { return ipv4 ? Unreachable{ICMP_DEST_UNREACH, ICMP_PORT_UNREACH} : Unreachable{ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOPORT}; }
Unreachable no_host(bool ipv4) { return ipv4 ? Unreachable{ICMP_DEST_UNREACH, ICMP_PKT_FILTERED} : Unreachable{ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADDR}; }
Unreachable prohibited(bool ipv4) { return ipv4 ? Unreachable{ICMP_DEST_UNREACH, ICMP_PKT_FILTERED} : Unreachable{ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADMIN}; }
Unreachable no_network(bool ipv4) { return ipv4 ? Unreachable{ICMP_DEST_UNREACH, ICMP_NET_UNREACH} : Unreachable{ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOROUTE}; }

RawSockets::~RawSockets() {
  if (ipv4_ >= 0) close(ipv4_);
  if (ipv6_ >= 0) close(ipv6_);
}

bool RawSockets::open() {
  ipv4_ = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
  ipv6_ = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
  return ipv4_ >= 0 || ipv6_ >= 0;
}

void RawSockets::refuse(const RelayConnect& connect, u16 port) const {
  tcphdr tcp = {};
  tcp.source = htons(port);
  tcp.dest = htons(connect.source_port);
  tcp.ack_seq = htonl(connect.isn + 1);
  tcp.doff = sizeof(tcp) / 4;
  tcp.rst = tcp.ack = 1;
  if (over_ipv4(connect)) {
    struct { iphdr ip; tcphdr tcp; } packet = {ipv4_header(IPPROTO_TCP, htonl(INADDR_LOOPBACK), ipv4_of(connect.source), sizeof(tcp)), tcp};
    packet.tcp.check = checksum(sum(&tcp, sizeof(tcp), pseudo_header(&packet.ip.saddr, &packet.ip.daddr, 4, IPPROTO_TCP, sizeof(tcp))));
    send_ipv4(ipv4_, &packet, sizeof(packet), packet.ip.daddr);
  } else {
    struct { ip6_hdr ip; tcphdr tcp; } packet = {ipv6_header(IPPROTO_TCP, in6addr_loopback, ipv6_of(connect.source), sizeof(tcp)), tcp};
    packet.tcp.check = checksum(sum(&tcp, sizeof(tcp), pseudo_header(&packet.ip.ip6_src, &packet.ip.ip6_dst, 16, IPPROTO_TCP, sizeof(tcp))));
    send_ipv6(ipv6_, &packet, sizeof(packet), packet.ip.ip6_dst);
  }
}

void RawSockets::unreachable(const RelayConnect& connect, u16 port, Unreachable what) const {
  const tcphdr syn = syn_of(connect, port);
  if (over_ipv4(connect)) quote_ipv4(ipv4_, ipv4_of(connect.source), IPPROTO_TCP, syn, what);
  else quote_ipv6(ipv6_, ipv6_of(connect.source), IPPROTO_TCP, syn, what);
}

void RawSockets::bounce(const Endpoint& source, u16 port, Unreachable what) const {
  udphdr udp = {};
  udp.source = htons(source.port);
  udp.dest = htons(port);
  udp.len = htons(sizeof(udp));
  if (is_ipv4(source.address)) quote_ipv4(ipv4_, ipv4_of(source.address), IPPROTO_UDP, udp, what);
  else quote_ipv6(ipv6_, ipv6_of(source.address), IPPROTO_UDP, udp, what);
}

}  // namespace mishap::relay
