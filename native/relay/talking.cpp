// What is decided about each datagram of a talker: whether it goes, when, how often, changed or not, or what comes back in its
// place; and about the names that it asks DNS servers for. See talker.h.
#include <string.h>

#include <algorithm>

#include "talker.h"
#include "wire/dns.h"

namespace mishap::relay {

using link::Parcel;
using link::ParcelKind;

// A socket that talks to several: the flow is the one that it talks to now.
void Talker::keep_policy(const Endpoint& peer) {
  if (!flow_) return;
  if (peer.port != load(&flow_->peer_port) || memcmp(peer.address, flow_->peer, sizeof(peer.address)) != 0) {
    memcpy(flow_->peer, peer.address, sizeof(peer.address));
    store(&flow_->peer_port, peer.port);
    generation_--;
  }
  const u32 generation = load(&talk_->shared->segment.header->generation);
  if (generation == generation_) return;
  generation_ = generation;
  policy_ = resolve_flow(talk_->shared->segment, flow_, {talk_->shared->names.of(peer.address), "", ""}, {from_.process, from_.tid}, &wants_).policy;
}

u64 Talker::way_back_ns(u64 at_ns) {
  u64 rate_clock_ns = 0;
  if (policy_ < 0 || !talk_->shared->in_force) return 0;
  return engine::foretell_ns(talk_->shared->segment, flow_, Direction::Downlink, 0, 1, at_ns, &rate_clock_ns);
}

// `inside`: its sender is in the run, and carried its faults.
void Talker::carry(Side* side, const Aim& aim, u8* bytes, u64 size, u64 at_ns, bool inside) {
  const Segment& segment = talk_->shared->segment;
  engine::Call call;
  engine::Begun begun = engine::Begun::NoRow;
  if (policy_ >= 0 && talk_->shared->in_force) {
    if (inside && !wants_.downlink_only) begun = engine::Begun::Gated;
    else begun = engine::begin(&call, segment, flow_, side->kind, side->direction, at_ns, inside);
  }
  if (begun != engine::Begun::Ready) {
    if (begun == engine::Begun::Gated) engine::count_gated(segment, flow_, side->direction, size);
    else if (flow_) add(&(side->direction == Direction::Uplink ? flow_->up : flow_->down).ops, u64{1});
    put(side, aim, bytes, size, at_ns, {});
    return overtake(side, 1, false);
  }
  const engine::Mutation mutation = engine::plan_mutation(call, size);
  u64 total = size;
  if (mutation.type != MutationType::None) {
    total = engine::mutate(mutation, bytes, size, size + engine::kMaxGrowth);
    if (!mutation.dry_run) engine::applied(call, Fault::PayloadMutation, 1);
    engine::commit_mutation(&call, mutation);
    count_lost(side->direction, total > size ? Account::Injected : Account::Cut, total > size ? total - size : size - total);
  }
  engine::Step step = engine::next_step(&call, total, !side->held.empty());
  decide(side, aim, &call, &step, bytes, total);
  engine::finish(&call);
}

void Talker::decide(Side* side, const Aim& aim, engine::Call* call, engine::Step* step, const u8* bytes, u64 size) {
  const engine::Decision& d = step->decision;
  if (d.outcome == Verdict::Continue || (d.outcome == Verdict::Drop && side->direction == Direction::Downlink)) engine::book_rate(call, step);
  if (d.outcome == Verdict::Continue) {
    if (!d.hold || !side->held.hold(bytes, size, aim, d, now_ns())) {
      put(side, aim, bytes, size, call->now_ns, d);
      if (d.copies) {
        engine::applied(*call, Fault::PacketDuplicate, d.copies);
        count_lost(side->direction, Account::Duplicated, d.copies * size);
      }
      overtake(side, 1 + d.copies, false);
    }
    return engine::commit(call, *step, step->bytes);
  }
  if (!d.continued) engine::applied(*call, d.fault, 1);
  count_lost(side->direction, d.outcome == Verdict::Drop ? Account::Dropped : Account::Cut, size);
  if (d.outcome == Verdict::Drop) return engine::commit(call, *step, step->bytes);
  engine::commit(call, *step, 0);
  if (d.outcome == Verdict::Timeout || d.fault == Fault::HalfOpen) return;  // nothing comes of it, which is all that is to be seen
  const bool ipv4 = is_ipv4(aim.peer.address);
  const u64 way_ns = side->direction == Direction::Uplink ? static_cast<u64>(std::max<i64>(d.delay_ns(), 0)) + way_back_ns(call->now_ns) : 0;
  bounce(aim, d.error == ErrorKind::Unreachable ? no_host(ipv4) : no_port(ipv4), call->now_ns + way_ns);
}

// ---- names ------------------------------------------------------------------------------------------------------------

// A question to a DNS server, under what holds for the name: it goes on late, is answered here, or is never answered. What else
// holds for the socket is not for it, as where libc asks.
void Talker::ask(const Aim& aim, u8* bytes, u64 size, u64 at_ns) {
  const Segment& segment = talk_->shared->segment;
  wire::Query query;
  Flow* flow = nullptr;
  engine::Call call;
  if (flow_ && !carried_ && talk_->shared->in_force && wire::parse_query(bytes, size, &query) && query.name[0]) {
    bool by_caller;
    const i32 policy = engine::resolve_lookup(segment, query.name, engine::policy_of(segment, *flow_, {from_.process, from_.tid}, &by_caller));
    char words[88];
    flow = policy >= 0 ? engine::open_lookup_flow(segment, query.name, policy, process_path_, from_.pid, words) : nullptr;
  }
  if (!flow || engine::begin(&call, segment, flow, OpKind::Dns, Direction::Uplink, at_ns) != engine::Begun::Ready) return put(&up_, aim, bytes, size, at_ns, {});
  const engine::Step step = engine::next_step(&call, 1);
  const engine::Decision& d = step.decision;
  if (d.outcome == Verdict::Timeout) {
    Parcel parcel = {};
    parcel.kind = ParcelKind::Shutdown;
    parcel.policy = call.policy;
    parcel.sent_ns = at_ns;
    parcel.due_ns = at_ns + d.timeout_ns;
    count_lost(Direction::Uplink, Account::Dropped, size);
    line_up(&down_, parcel, nullptr, 0);
  } else if (d.outcome == Verdict::NxDomain) {
    engine::applied(call, Fault::DnsNxdomain, 1);
    count_lost(Direction::Uplink, Account::Dropped, size);
    const u64 answer = wire::make_nxdomain(bytes, size, bytes, kReadBytes);
    count_lost(Direction::Downlink, Account::Injected, answer);
    put(&down_, aim, bytes, answer, at_ns, d);
  } else {
    put(&up_, aim, bytes, size, at_ns, d);
  }
  engine::commit(&call, step, 1);
  engine::finish(&call);
}

void Talker::pass_answer(const Aim& aim, const u8* bytes, u64 size) {
  wire::Response response;
  if (wire::parse_response(bytes, size, &response))
    for (u32 i = 0; i < response.address_count; i++) talk_->shared->names.learn(response.addresses[i], response.name);
  put(&down_, aim, bytes, size, now_ns(), {});
}

// A question that nobody answers was not answered for so long.
void Talker::end_silence(const Parcel& parcel) const {
  record_time(talk_->shared->segment, parcel.policy, Fault::DnsTimeout, Direction::Uplink, now_ns() - parcel.sent_ns, parcel.due_ns - parcel.sent_ns);
}

// `passed` units went by: held ones whose turn it is follow.
void Talker::overtake(Side* side, u32 passed, bool all) {
  if (side->held.empty()) return;
  const u64 now = now_ns();
  side->held.pass(passed);
  while (const std::optional<Held> unit = side->held.take(now, all)) {
    put(side, unit->aim, unit->bytes.data(), unit->bytes.size(), now, unit->decision());
    unit->file(talk_->shared->segment, policy_, side->direction, now);
    count_lost(side->direction, Account::Duplicated, unit->copies * unit->bytes.size());
  }
}

}  // namespace mishap::relay
