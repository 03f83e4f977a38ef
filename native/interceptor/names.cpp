// Names: look-ups through libc and answers on the wire, under R6; and what addresses were called, learned from answers, so
// that targets and identities can speak of hosts.
//
// A look-up's flow is the name itself in this process, its unit the n-th look-up of that name: which pool thread performs
// it does not matter.
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>

#include "interceptor.h"
#include "wire/dns.h"

namespace mishap {
namespace {

// Learned names: a small ring, the newest first to be found. Rows are published under a sequence number of their own.
constexpr u32 kNames = 512;
struct Learned {
  u32 seq;
  u8 address[16];
  char host[256];
};
Learned learned[kNames];
u32 learned_next;

void learn_list(const addrinfo* list, const char* host) {
  for (const addrinfo* a = list; a; a = a->ai_next) {
    Endpoint endpoint;
    if (endpoint_of(a->ai_addr, a->ai_addrlen, &endpoint)) learn_name(endpoint.address, host);
  }
}
void learn_entry(const hostent* entry, const char* host) {
  for (char** a = entry ? entry->h_addr_list : nullptr; a && *a; a++) {
    u8 address[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (entry->h_addrtype == AF_INET) memcpy(address + 12, *a, 4);
    else memcpy(address, *a, 16);
    learn_name(address, host);
  }
}

enum class Answer : u8 { Real, NotFound, TryAgain };

// Decides a look-up under the policy that is bound to it, which begins (or whose answer arrived) at `from_ns`; waits as
// decided, and says how it ends.
Answer decide_lookup(const char* host, u64 from_ns, i32 bound) {
  if (!host || !host[0] || !active()) return Answer::Real;
  i32 policy = engine::resolve_lookup(self.segment, host, bound);
  char words[88];
  Flow* flow = policy >= 0 ? engine::open_lookup_flow(self.segment, host, policy, self.lineage, self.pid, words) : nullptr;
  if (!flow) return Answer::Real;
  if (self.scripted) ask_about_lookup(flow, words, host);
  engine::Call call;
  if (engine::begin(&call, self.segment, flow, OpKind::Dns, Direction::Uplink, from_ns) != engine::Begun::Ready) return Answer::Real;
  engine::Step step = engine::next_step(&call, 1);
  const engine::Decision& d = step.decision;
  if (i64 delay = d.delay_ns(); delay > 0 && d.outcome != Verdict::Timeout) {
    u64 end = wait_until(from_ns + static_cast<u64>(delay));
    engine::delivered(call, d, end - from_ns);
  }
  Answer answer = Answer::Real;
  if (d.outcome == Verdict::NxDomain) {
    engine::applied(call, Fault::DnsNxdomain, 1);
    answer = Answer::NotFound;
  } else if (d.outcome == Verdict::Timeout) {
    u64 end = wait_until(from_ns + d.timeout_ns);
    engine::applied_wait(call, Fault::DnsTimeout, end - from_ns, d.timeout_ns);
    answer = Answer::TryAgain;
  }
  engine::commit(&call, step, 1);
  engine::finish(&call);
  return answer;
}

// The policy of whoever looks a name up: the one that the look-up itself names, or else this thread's.
i32 policy_of_lookup(i32 named) {
  if (!active()) return -1;
  if (named < 0) named = static_cast<i32>(thread.entered) - 1;
  return in_use(self.segment, named) ? named : bound_policy(self.segment, caller());
}

// A look-up through libc. Numeric addresses are no look-ups.
Answer look_up(const char* host, i32 named = -1) {
  if (!host) return Answer::Real;
  u8 scratch[16];
  if (inet_pton(AF_INET, host, scratch) == 1 || inet_pton(AF_INET6, host, scratch) == 1) return Answer::Real;
  int kept = errno;
  Answer answer = decide_lookup(host, now_ns(), policy_of_lookup(named));
  errno = kept;
  return answer;
}

int herrno_of(Answer answer) { return answer == Answer::NotFound ? HOST_NOT_FOUND : TRY_AGAIN; }

template <class LookUp>
hostent* entry_of(const char* host, LookUp really) {
  Guard guard;
  Answer answer = guard ? look_up(host) : Answer::Real;
  if (answer != Answer::Real) {
    h_errno = herrno_of(answer);
    return nullptr;
  }
  hostent* entry = really();
  if (guard && self.attached) learn_entry(entry, host);
  return entry;
}
template <class LookUp>
int entry_of_r(const char* host, hostent** result, int* error, LookUp really) {
  Guard guard;
  Answer answer = guard ? look_up(host) : Answer::Real;
  if (answer != Answer::Real) {
    *result = nullptr;
    *error = herrno_of(answer);
    return answer == Answer::NotFound ? 0 : EAGAIN;
  }
  int status = really();
  if (guard && self.attached && status == 0) learn_entry(*result, host);
  return status;
}
template <class LookUp>
int answer_of(const char* host, LookUp really) {
  Guard guard;
  Answer answer = guard ? look_up(host) : Answer::Real;
  if (answer == Answer::Real) return really();
  h_errno = herrno_of(answer);
  return -1;
}

// The name that a reverse look-up asks for, as in RFC 1035, 3.5 (IPv4 only; IPv6 by its text).
void reverse_name(const void* address, int family, char* out, u32 capacity) {
  if (family == AF_INET) {
    const u8* a = static_cast<const u8*>(address);
    snprintf(out, capacity, "%u.%u.%u.%u.in-addr.arpa", a[3], a[2], a[1], a[0]);
  } else if (!inet_ntop(family, address, out, capacity)) {
    out[0] = 0;
  }
}

}  // namespace

void learn_name(const u8 address[16], const char* host) {
  if (!self.attached || strlen(host) >= sizeof(learned[0].host)) return;
  char known[256];
  if (name_of(address, known, sizeof(known)) && strcasecmp(known, host) == 0) return;
  Learned& row = learned[__atomic_fetch_add(&learned_next, 1, __ATOMIC_RELAXED) % kNames];
  u32 seq = load(&row.seq);
  if ((seq & 1) || !swap_if(&row.seq, seq, seq + 1)) return;
  memcpy(row.address, address, 16);
  for (u32 i = 0; (row.host[i] = host[i] >= 'A' && host[i] <= 'Z' ? static_cast<char>(host[i] + 32) : host[i]); i++) {}
  store_release(&row.seq, seq + 2);
}

bool name_of(const u8 address[16], char* host, u32 capacity) {
  u32 newest = load(&learned_next);
  for (u32 i = 0; i < kNames && i < newest; i++) {
    const Learned& row = learned[(newest - 1 - i) % kNames];
    u32 seq = load_acquire(&row.seq);
    if (seq == 0 || (seq & 1) || memcmp(row.address, address, 16)) continue;
    u32 n = 0;
    for (; n + 1 < capacity && row.host[n]; n++) host[n] = row.host[n];
    host[n] = 0;
    fence_acquire();
    if (load(&row.seq) == seq) return true;
  }
  host[0] = 0;
  return false;
}

// A resolver of the program's own: its answers are delayed, lost or turned into NXDOMAIN on the wire.
ssize_t receive_answer(const Incoming& in, Socket* socket, RealReceive original, const void* arguments) {
  for (;;) {
    ssize_t n = original(arguments);
    if (n <= 0 || (in.flags & MSG_PEEK) || static_cast<u64>(n) > in.total) return n;
    u8 bytes[4096];
    u64 size = static_cast<u64>(n);
    if (size > sizeof(bytes)) return n;
    gather(in.parts, in.count, 0, bytes, size);
    wire::Response response;
    if (!wire::parse_response(bytes, size, &response)) return n;
    for (u32 i = 0; i < response.address_count; i++) learn_name(response.addresses[i], response.name);
    bool by_caller;
    i32 bound = socket->flow ? engine::policy_of(self.segment, *socket->flow, caller(), &by_caller) : policy_of_lookup(-1);
    Answer answer = still_ours(in.fd, socket) ? decide_lookup(response.name, now_ns(), bound) : Answer::Real;
    if (answer == Answer::Real) return n;
    if (answer == Answer::NotFound) {
      const u64 received = size;
      size = wire::make_nxdomain(bytes, size, bytes, sizeof(bytes));
      scatter(bytes, size, in.parts, in.count);
      account_for_change(socket, Direction::Downlink, received, size);
      return static_cast<ssize_t>(size);
    }
    account_for(socket, Direction::Downlink, Account::Dropped, size);
    if (is_nonblocking(in.fd, in.flags)) {  // the answer is lost; the resolver's own timer decides what follows
      errno = EAGAIN;
      return -1;
    }
  }
}

namespace slow {

int getaddrinfo(const char* host, const char* service, const addrinfo* hints, addrinfo** result) {
  Guard guard;
  i32 named = -1;
  addrinfo plain;
  if (hints && load(&self.marked_lookups)) {
    named = (hints->ai_flags >> kLookupPolicyShift) - 1;
    plain = *hints;
    plain.ai_flags &= (1 << kLookupPolicyShift) - 1;
    hints = &plain;
  }
  bool numeric = hints && (hints->ai_flags & AI_NUMERICHOST);
  Answer answer = guard && host && !numeric ? look_up(host, named) : Answer::Real;
  if (answer == Answer::NotFound) return EAI_NONAME;
  if (answer == Answer::TryAgain) return EAI_AGAIN;
  int status = real.getaddrinfo(host, service, hints, result);
  if (guard && status == 0 && host && !numeric && self.attached) {
    int kept = errno;
    u8 scratch[16];
    if (inet_pton(AF_INET, host, scratch) != 1 && inet_pton(AF_INET6, host, scratch) != 1) learn_list(*result, host);
    errno = kept;
  }
  return status;
}

hostent* gethostbyname(const char* host) {
  return entry_of(host, [&] { return real.gethostbyname(host); });
}
hostent* gethostbyname2(const char* host, int family) {
  return entry_of(host, [&] { return real.gethostbyname2(host, family); });
}
int gethostbyname_r(const char* host, hostent* entry, char* buffer, size_t size, hostent** result, int* error) {
  return entry_of_r(host, result, error, [&] { return real.gethostbyname_r(host, entry, buffer, size, result, error); });
}
int gethostbyname2_r(const char* host, int family, hostent* entry, char* buffer, size_t size, hostent** result, int* error) {
  return entry_of_r(host, result, error, [&] { return real.gethostbyname2_r(host, family, entry, buffer, size, result, error); });
}
hostent* gethostbyaddr(const void* address, socklen_t length, int family) {
  char name[80];
  reverse_name(address, family, name, sizeof(name));
  Guard guard;
  Answer answer = guard ? decide_lookup(name, now_ns(), policy_of_lookup(-1)) : Answer::Real;
  if (answer == Answer::Real) return real.gethostbyaddr(address, length, family);
  h_errno = herrno_of(answer);
  return nullptr;
}
int gethostbyaddr_r(const void* address, socklen_t length, int family, hostent* entry, char* buffer, size_t size, hostent** result, int* error) {
  char name[80];
  reverse_name(address, family, name, sizeof(name));
  Guard guard;
  Answer answer = guard ? decide_lookup(name, now_ns(), policy_of_lookup(-1)) : Answer::Real;
  if (answer == Answer::Real) return real.gethostbyaddr_r(address, length, family, entry, buffer, size, result, error);
  *result = nullptr;
  *error = herrno_of(answer);
  return answer == Answer::NotFound ? 0 : EAGAIN;
}

int res_query(const char* host, int cls, int type, unsigned char* answer, int size) {
  return answer_of(host, [&] { return real.res_query(host, cls, type, answer, size); });
}
int res_search(const char* host, int cls, int type, unsigned char* answer, int size) {
  return answer_of(host, [&] { return real.res_search(host, cls, type, answer, size); });
}
int res_nquery(struct __res_state* state, const char* host, int cls, int type, unsigned char* answer, int size) {
  return answer_of(host, [&] { return real.res_nquery(state, host, cls, type, answer, size); });
}
int res_nsearch(struct __res_state* state, const char* host, int cls, int type, unsigned char* answer, int size) {
  return answer_of(host, [&] { return real.res_nsearch(state, host, cls, type, answer, size); });
}
// glibc exports each under its old name too; where only one of the two exists, the other's original is used.
int __res_query(const char* host, int cls, int type, unsigned char* answer, int size) { return slow::res_query(host, cls, type, answer, size); }
int __res_search(const char* host, int cls, int type, unsigned char* answer, int size) { return slow::res_search(host, cls, type, answer, size); }
int __res_nquery(struct __res_state* state, const char* host, int cls, int type, unsigned char* answer, int size) { return slow::res_nquery(state, host, cls, type, answer, size); }
int __res_nsearch(struct __res_state* state, const char* host, int cls, int type, unsigned char* answer, int size) { return slow::res_nsearch(state, host, cls, type, answer, size); }

}  // namespace slow
}  // namespace mishap
