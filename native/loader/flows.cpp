#include "flows.h"

#include <arpa/inet.h>
#include <bpf/libbpf.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include <unordered_set>

#include "contract/stats.h"
#include "contract/tables.h"

namespace mishap::loader {
namespace {

constexpr size_t kKept = 65536;  // closed flows that are told one by one
enum Lost : u32 { kLostEvents, kLostRows, kLostUp, kLostDown };  // as in bpf/common.h

// The event as bpf/common.h has it.
struct Event {
  u64 kind;
  union {
    KernelSocket socket;
    KernelDelay delay;
  };
};

std::string format(const char* form, auto... values) {
  char text[512];
  snprintf(text, sizeof(text), form, values...);
  return text;
}

std::string endpoint(const u8 address[16], u16 port) {
  constexpr u8 mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  char text[INET6_ADDRSTRLEN];
  if (memcmp(address, mapped, sizeof(mapped)) == 0) return std::string(inet_ntop(AF_INET, address + 12, text, sizeof(text))) + ":" + std::to_string(port);
  return "[" + std::string(inet_ntop(AF_INET6, address, text, sizeof(text))) + "]:" + std::to_string(port);
}

const char* state_name(u8 state) {
  static const char* const names[] = {"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "SYN_RECV"};
  return state < sizeof(names) / sizeof(names[0]) ? names[state] : "";
}

const char* role_name(const KernelSocket& socket) {
  if (socket.flags & MISHAP_SOCKET_LISTENING) return "listener";
  switch (static_cast<Role>(socket.owner.role)) {
    case Role::Acceptor: return "acceptor";
    case Role::Datagram: return "datagram";
    default: return "connector";
  }
}

std::string program_of(const KernelSocket& socket) { return {socket.program, strnlen(socket.program, sizeof(socket.program))}; }

using Number = unsigned long long;

std::string line_of(const KernelSocket& s, bool open) {
  const Owner& owner = s.owner;
  std::string line = format(R"({"flow":{"cookie":"%llu","pid":%d,"tid":%d,"process":"%llu",)", Number{owner.cookie}, owner.pid, owner.tid, Number{owner.process});
  line += "\"program\":" + quoted(program_of(s));
  line += format(R"(,"role":"%s","protocol":"%s","open":%s,"state":"%s",)", role_name(s), s.protocol == static_cast<u8>(Protocol::Udp) ? "udp" : "tcp",
                 open ? "true" : "false", state_name(s.tcp_state));
  line += "\"local\":" + quoted(endpoint(s.local, s.local_port)) + ",\"peer\":" + quoted(endpoint(s.peer, s.peer_port));
  auto flag = [&s](u32 bit) { return s.flags & bit ? "true" : "false"; };
  line += format(R"(,"claimed":%s,"relayed":%s,"policy":%d,"reset":%s,"created_ns":"%llu",)", flag(MISHAP_SOCKET_CLAIMED), flag(MISHAP_SOCKET_RELAYED), s.policy,
                 flag(MISHAP_SOCKET_RESET), Number{owner.created_ns});
  line += format(R"("bytes_up":%llu,"bytes_down":%llu,"ops_up":%llu,"ops_down":%llu,)", Number{s.bytes[0]}, Number{s.bytes[1]}, Number{s.ops[0]}, Number{s.ops[1]});
  line += format(R"("rtt_us":%u,"retransmits":%u,"resets":%u,"failures":%u}})", s.srtt_us, s.retransmits, s.resets, s.failures);
  return line + "\n";
}

}  // namespace

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) out += format("\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    else out += c;
  }
  return out + "\"";
}

Flows::Flows(const Kernel& kernel) : kernel_(kernel), ring_(ring_buffer__new(kernel.events_fd(), on_event, this, nullptr)) {}
Flows::~Flows() {
  if (ring_) ring_buffer__free(ring_);
}

int Flows::events() const { return ring_ ? ring_buffer__epoll_fd(ring_) : -1; }
void Flows::take_in() {
  if (ring_) ring_buffer__consume(ring_);
}

int Flows::on_event(void* self, void* data, size_t size) {
  Flows& flows = *static_cast<Flows*>(self);
  const Event& event = *static_cast<const Event*>(data);
  if (size < sizeof(Event)) return 0;
  if (event.kind == MISHAP_EVENT_CLOSED) flows.keep(event.socket);
  else flows.delays_[{event.delay.policy, event.delay.direction}][histogram_bucket(event.delay.delay_ns)]++;
  return 0;
}

void Flows::keep(const KernelSocket& socket) {
  closed_count_++;
  closed_.push_back(socket);
  if (closed_.size() <= kKept) return;
  const KernelSocket& oldest = closed_.front();
  Sum& sum = older_[{oldest.owner.pid, program_of(oldest), (oldest.flags & MISHAP_SOCKET_CLAIMED) != 0, (oldest.flags & MISHAP_SOCKET_RELAYED) != 0}];
  sum.flows++;
  sum.up += oldest.bytes[0];
  sum.down += oldest.bytes[1];
  closed_.pop_front();
}

std::vector<KernelSocket> Flows::open_rows() const {
  std::vector<KernelSocket> open;
  for (u32 i = 0; i < MISHAP_KERNEL_SOCKETS; i++) {
    const KernelSocket& row = kernel_.rows()[i];
    const u64 cookie = __atomic_load_n(&row.owner.cookie, __ATOMIC_ACQUIRE);
    if (cookie == 0 || cookie == ~u64{0}) continue;
    KernelSocket copy;
    memcpy(&copy, &row, sizeof(copy));
    // It may have closed meanwhile, and the row be another's.
    if (copy.owner.cookie == cookie && __atomic_load_n(&row.owner.cookie, __ATOMIC_ACQUIRE) == cookie) open.push_back(copy);
  }
  return open;
}

std::string Flows::tell(bool relay_lost) {
  std::vector<KernelSocket> open = open_rows();
  take_in();  // behind the rows: what closes between the two is told twice rather than never, and dropped here
  std::unordered_set<u64> closed;
  std::string text;
  for (const KernelSocket& socket : closed_) {
    text += line_of(socket, false);
    closed.insert(socket.owner.cookie);
  }
  closed_.clear();
  std::erase_if(open, [&](const KernelSocket& socket) { return closed.contains(socket.owner.cookie); });
  for (const KernelSocket& socket : open) text += line_of(socket, true);
  text += format(R"({"flows":{"relay_lost":%s,"open":%llu,"closed":%llu,"lost_events":%llu,"lost_bytes_up":%llu,"lost_bytes_down":%llu,"without_row":%llu,"older":[)", relay_lost ? "true" : "false", Number{open.size()},
                 Number{closed_count_}, Number{kernel_.lost(kLostEvents)}, Number{kernel_.lost(kLostUp)}, Number{kernel_.lost(kLostDown)}, Number{kernel_.lost(kLostRows)});
  const char* comma = "";
  for (const auto& [key, sum] : older_) {
    const auto& [pid, program, claimed, relayed] = key;
    text += format(R"(%s{"pid":%d,"program":)", comma, pid) + quoted(program);
    text += format(R"(,"claimed":%s,"relayed":%s,"flows":%llu,"bytes_up":%llu,"bytes_down":%llu})", claimed ? "true" : "false", relayed ? "true" : "false", Number{sum.flows}, Number{sum.up}, Number{sum.down});
    comma = ",";
  }
  older_.clear();
  text += R"(],"delays":[)";
  comma = "";
  for (const auto& [key, buckets] : delays_) {
    text += format(R"(%s{"policy":%d,"direction":%u,"buckets":[)", comma, key.first, key.second);
    comma = "";
    for (const auto& [bucket, count] : buckets) {
      text += format("%s[%u,%llu]", comma, bucket, Number{count});
      comma = ",";
    }
    text += "]}";
    comma = ",";
  }
  return text + "]}}\n";
}

}  // namespace mishap::loader
