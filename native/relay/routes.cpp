// Routes; see routes.h.
#include "routes.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "address.h"
#include "segment/atomic.h"

namespace mishap::relay {
namespace {

constexpr size_t kMostNetworks = 1024;  // read of a host's table
constexpr u8 kMappedBits = 96;
constexpr u16 kAnyPort = 9;             // discard: nothing is sent there
constexpr u32 kSamples = 64;            // addresses tried, to find one of a network that no smaller network has

u8 mask_of(u8 length, u32 byte) {
  const u32 bits = length > 8 * byte ? std::min<u32>(8, length - 8 * byte) : 0;
  return static_cast<u8>(0xff00 >> bits);
}

bool is_within(const u8 address[16], const u8 network[16], u8 length) {
  for (u32 i = 0; i < 16; i++)
    if ((address[i] ^ network[i]) & mask_of(length, i)) return false;
  return true;
}

// The n-th sample of a network: its own bits, and any others.
void sample(const u8 network[16], u8 length, u32 n, u8 out[16]) {
  u64 state = 0x9e3779b97f4a7c15ull * (n + 1);
  for (u32 i = 0; i < 16; i++) {
    state ^= state >> 29;
    state *= 0xbf58476d1ce4e5b9ull;
    out[i] = static_cast<u8>((network[i] & mask_of(length, i)) | (static_cast<u8>(state >> 56) & ~mask_of(length, i)));
  }
}

// What the kernel chooses for a socket of ours, which are the programs' user's; all zero: nothing.
void ask(const u8 address[16], u8 source[16]) {
  memset(source, 0, 16);
  sockaddr_storage to;
  socklen_t length = address_of(address, kAnyPort, 0, &to);
  const int fd = socket(to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  if (connect(fd, reinterpret_cast<sockaddr*>(&to), length) == 0 && getsockname(fd, reinterpret_cast<sockaddr*>(&to), &length) == 0)
    memcpy(source, endpoint_of(to).address, 16);
  close(fd);
}

}  // namespace

Routes::~Routes() {
  if (changes_ >= 0) close(changes_);
}

void Routes::open(RelayPool* shared, int epoll, u64 mark) {
  shared_ = shared;
  changes_ = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
  sockaddr_nl group = {};
  group.nl_family = AF_NETLINK;
  group.nl_groups = RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
  epoll_event event = {EPOLLIN, {.u64 = mark}};
  if (changes_ >= 0 && bind(changes_, reinterpret_cast<sockaddr*>(&group), sizeof(group)) == 0) epoll_ctl(epoll, EPOLL_CTL_ADD, changes_, &event);
  keep_up();
}

void Routes::changed() {
  u8 ignored[8192];
  while (recv(changes_, ignored, sizeof(ignored), 0) > 0 || errno == ENOBUFS) {
  }
  changed_ = true;
}

void Routes::keep_up() {
  if (!changed_) return;
  changed_ = false;
  std::map<Network, Source> networks;
  // Everything of either family, whether or not there is a way: what is in no network is IPv6 of nobody.
  Network any = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, kMappedBits};
  networks[any] = {};
  networks[Network{}] = {};
  list_networks(AF_INET, &networks);
  list_networks(AF_INET6, &networks);
  for (auto& [network, source] : networks) {
    for (u32 n = 0; n < kSamples; n++) {
      u8 address[16];
      sample(network.address, network.length, n, address);
      const bool elsewhere = std::any_of(networks.begin(), networks.end(), [&](const auto& other) {
        return other.first.length > network.length && is_within(address, other.first.address, other.first.length);
      });
      if (elsewhere && network.length < 128) continue;
      ask(address, source.address);
      break;
    }
  }
  publish(networks);
}

void Routes::list_networks(int family, std::map<Network, Source>* out) const {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return;
  const timeval patience = {0, 200000};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  struct {
    nlmsghdr header;
    rtmsg route;
  } question = {};
  question.header.nlmsg_len = sizeof(question);
  question.header.nlmsg_type = RTM_GETROUTE;
  question.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  question.route.rtm_family = static_cast<u8>(family);
  bool more = send(fd, &question, sizeof(question), 0) == sizeof(question);
  std::vector<u64> answer(8192);
  while (more) {
    const ssize_t n = recv(fd, answer.data(), answer.size() * sizeof(u64), 0);
    if (n <= 0) break;
    u32 left = static_cast<u32>(n);
    for (auto* header = reinterpret_cast<nlmsghdr*>(answer.data()); NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) more = false;
      if (header->nlmsg_type != RTM_NEWROUTE || header->nlmsg_len < NLMSG_LENGTH(sizeof(rtmsg)) || out->size() >= kMostNetworks) continue;
      auto* route = static_cast<rtmsg*>(NLMSG_DATA(header));
      const u32 bytes = family == AF_INET ? 4 : 16, at = 16 - bytes;
      if (route->rtm_family != family || route->rtm_dst_len > 8 * bytes || (route->rtm_flags & RTM_F_CLONED)) continue;
      Network network = {};
      if (family == AF_INET) network.address[10] = network.address[11] = 0xff;
      network.length = static_cast<u8>(route->rtm_dst_len + 8 * at);
      u32 room = RTM_PAYLOAD(header);
      for (rtattr* attribute = RTM_RTA(route); RTA_OK(attribute, room); attribute = RTA_NEXT(attribute, room))
        if (attribute->rta_type == RTA_DST && RTA_PAYLOAD(attribute) == bytes) memcpy(network.address + at, RTA_DATA(attribute), bytes);
      out->try_emplace(network);
    }
  }
  close(fd);
}

// Longest first, without those that say what a larger network says too.
void Routes::publish(const std::map<Network, Source>& networks) const {
  std::vector<std::pair<Network, Source>> list(networks.begin(), networks.end()), kept;
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.first.length > b.first.length; });
  for (size_t i = 0; i < list.size(); i++) {
    const auto& [network, source] = list[i];
    const auto around = std::find_if(list.begin() + static_cast<long>(i) + 1, list.end(), [&](const auto& other) {
      return other.first.length < network.length && is_within(network.address, other.first.address, other.first.length);
    });
    if (around == list.end() || !(around->second == source)) kept.push_back(list[i]);
  }
  const u32 turn = (load(&shared_->turn) & 1) ^ 1;
  // Where there are too many, the largest are kept: a small network's destinations are taken for its surroundings'.
  const size_t count = std::min<size_t>(kept.size(), MISHAP_RELAY_ROUTES), from = kept.size() - count;
  for (size_t i = 0; i < count; i++) {
    const auto& [network, source] = kept[from + i];
    RelayRoute* row = &shared_->routes[turn * MISHAP_RELAY_ROUTES + i];
    u8 mask[16];
    for (u32 byte = 0; byte < 16; byte++) mask[byte] = mask_of(network.length, byte);
    memcpy(row->prefix, network.address, 16);
    memcpy(row->mask, mask, 16);
    memcpy(row->source, source.address, 16);
  }
  store(&shared_->routes_count[turn], static_cast<u32>(count));
  store_release(&shared_->turn, turn);
}

}  // namespace mishap::relay
