// R0 resolve: which policy holds for a flow. The chain of bindings (fd owner, thread, process, project) names a policy, its
// targets narrow it by priority, its schedule says how much of it is in force now.
#include <string.h>

#include "stages.h"
#include "wire/match.h"

namespace mishap::engine {
namespace {

bool port_matches(const Target& rule, u16 port) {
  if (rule.port_ranges == 0) return true;
  for (u32 i = 0; i < rule.port_ranges; i++)
    if (port >= rule.port_low[i] && port <= rule.port_high[i]) return true;
  return false;
}

bool protocol_matches(const Target& rule, const Flow& flow) {
  auto wanted = static_cast<Protocol>(rule.protocol);
  auto is = static_cast<Protocol>(flow.protocol);
  if (is == Protocol::Unix || wanted == Protocol::Unix) return is == wanted;
  return wanted == Protocol::Any || is == wanted;
}

enum class Match : u8 { No, Yes, Later };

Match matches(const Target& rule, const Flow& flow, const Names& names) {
  if (!protocol_matches(rule, flow)) return Match::No;
  auto kind = static_cast<NameKind>(rule.name_kind);
  if (kind == NameKind::UnixPath) return rule.name[0] == 0 || wire::name_matches(rule.name, names.unix_path) ? Match::Yes : Match::No;
  if (!port_matches(rule, flow.peer_port)) return Match::No;
  if (rule.prefix_length && !wire::address_matches(rule.address, rule.prefix_length, flow.peer)) return Match::No;
  if (kind == NameKind::Hostname) return names.host[0] && wire::name_matches(rule.name, names.host) ? Match::Yes : Match::No;
  if (kind == NameKind::Sni) {
    if (!names.sni[0]) return Match::Later;
    return wire::name_matches(rule.name, names.sni) ? Match::Yes : Match::No;
  }
  return Match::Yes;
}

}  // namespace

i32 policy_of(const Segment& segment, const Flow& flow, Caller caller, bool* by_caller) {
  *by_caller = false;
  if (in_use(segment, flow.bound_policy)) return flow.bound_policy;
  if (load(&segment.header->flags) & kHeaderThreads) {
    i32 policy;
    const bool owned = flow.owner_tid && (flow.owner_tid != caller.tid || flow.owner_process != caller.process);
    if (owned && find_binding(segment, {flow.owner_process, flow.owner_tid}, &policy)) return policy;
    *by_caller = owned || !flow.owner_tid || !find_binding(segment, caller, &policy);
  }
  return bound_policy(segment, caller);
}

Resolution resolve(const Segment& segment, const Flow& flow, const Names& names, Caller caller) {
  Resolution result;
  // The end that connected carries a flow's faults; the accepting end only a policy bound to it by name.
  if (flow.carried_by_peer && !in_use(segment, flow.bound_policy)) return result;
  i32 policy = policy_of(segment, flow, caller, &result.by_caller);
  const Row* row = cached_row(segment, policy);
  if (!row) return result;
  if (row->target_count == 0) {
    if (flow.protocol != static_cast<u8>(Protocol::Unix)) result.policy = policy;
    return result;
  }
  u32 sequence = row->seq;
  for (u32 i = 0; i < row->target_count; i++) {
    Target rule;
    if (!read_target(segment, policy, i, sequence, &rule)) break;
    Match match = matches(rule, flow, names);
    if (match == Match::Later) result.wants_sni = true;
    if (match != Match::Yes) continue;
    result.policy = policy;
    result.wants_sni = false;
    break;
  }
  return result;
}

i32 resolve_lookup(const Segment& segment, const char* host, i32 policy) {
  const Row* row = cached_row(segment, policy);
  constexpr u32 dns_faults = bit(Fault::DnsDelay) | bit(Fault::DnsTimeout) | bit(Fault::DnsNxdomain);
  if (!row || !((row->faults & dns_faults) || (row->script_asks & asks_op(OpKind::Dns)))) return -1;
  if (row->target_count == 0) return policy;
  for (u32 i = 0; i < row->target_count; i++) {
    Target rule;
    if (!read_target(segment, policy, i, row->seq, &rule)) return -1;
    if (rule.name_kind == static_cast<u8>(NameKind::Hostname) && rule.port_ranges == 0 &&
        rule.protocol == static_cast<u8>(Protocol::Any) && wire::name_matches(rule.name, host))
      return policy;
  }
  return -1;
}

// How much of the policy is in force, in ppm: 0 off, 1,000,000 full, between on a ramp.
u32 schedule_scale_ppm(const Row& row, u64 elapsed_ns) {
  switch (static_cast<ScheduleKind>(row.schedule_kind)) {
    case ScheduleKind::Ramp:
      if (elapsed_ns >= row.schedule_first_ns) return kCertainPpm;
      return static_cast<u32>(static_cast<unsigned __int128>(elapsed_ns) * kCertainPpm / row.schedule_first_ns);
    case ScheduleKind::Spike:
      return row.schedule_first_ns == 0 || elapsed_ns % row.schedule_first_ns < row.schedule_second_ns ? kCertainPpm : 0;
    case ScheduleKind::Flapping: {
      u64 cycle = row.schedule_first_ns + row.schedule_second_ns;
      return cycle == 0 || elapsed_ns % cycle < row.schedule_first_ns ? kCertainPpm : 0;
    }
    default: return kCertainPpm;
  }
}

}  // namespace mishap::engine
