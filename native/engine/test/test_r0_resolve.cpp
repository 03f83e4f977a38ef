// R0: which policy a flow meets, by binding, target and schedule.
#include "world.h"

using namespace mishap;
using namespace mishap::engine;
using namespace mishap::engine::test;

namespace {

constexpr u64 kProcess = process_key(100, 7), kOtherProcess = process_key(101, 7);
constexpr Caller kCaller = {kProcess, 101}, kOtherThread = {kProcess, 102}, kElsewhere = {kOtherProcess, 101};

void set_ipv4(u8 to[16], u8 a, u8 b, u8 c, u8 d) {
  const u8 mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d};
  memcpy(to, mapped, 16);
}

Flow* to_ipv4(World& world, u8 a, u8 b, u8 c, u8 d, u16 port, FlowKind kind = kStream) {
  Flow* flow = world.open(kind);
  set_ipv4(flow->peer, a, b, c, d);
  flow->peer_port = port;
  return flow;
}

// A rule for everything; a test narrows it.
Target rule() { return {}; }
Target rule_net(u8 a, u8 b, u8 c, u8 d, u8 ipv4_bits) {
  Target target = {};
  set_ipv4(target.address, a, b, c, d);
  target.prefix_length = static_cast<u8>(96 + ipv4_bits);
  return target;
}
Target rule_named(NameKind kind, const char* name) {
  Target target = {};
  target.name_kind = static_cast<u8>(kind);
  strcpy(target.name, name);
  return target;
}

i32 resolved(const World& world, const Flow* flow, const Names& names = {}) {
  return resolve(world.segment, *flow, names, kCaller).policy;
}

}  // namespace

TEST_CASE("the closest binding wins: descriptor, thread, process, project") {
  World world;
  for (u32 policy = 0; policy < 4; policy++) world.publish(row_of({Fault::Latency}), {}, policy);
  Flow* flow = world.open();
  CHECK(resolved(world, flow) == 0);
  REQUIRE(bind(world.segment, {kProcess, 0}, 1));
  CHECK(resolved(world, flow) == 1);
  REQUIRE(bind(world.segment, kCaller, 2));
  CHECK(resolved(world, flow) == 2);
  CHECK(resolve(world.segment, *flow, {}, kOtherThread).policy == 1);
  CHECK(resolve(world.segment, *flow, {}, kElsewhere).policy == 0);
  flow->bound_policy = 3;
  CHECK(resolved(world, flow) == 3);
  CHECK(resolve(world.segment, *flow, {}, kElsewhere).policy == 3);
}

TEST_CASE("a flow stays with its owner's thread, whoever uses it; with nothing bound there it follows its user") {
  World world;
  for (u32 policy = 0; policy < 3; policy++) world.publish(row_of({Fault::Latency}), {}, policy);
  Flow* flow = world.open();
  flow->owner_process = kCaller.process;
  flow->owner_tid = kCaller.tid;
  CHECK_FALSE(resolve(world.segment, *flow, {}, kOtherThread).by_caller);  // no thread has a binding at all
  REQUIRE(bind(world.segment, kOtherThread, 2));
  Resolution used = resolve(world.segment, *flow, {}, kOtherThread);
  CHECK(used.policy == 2);
  CHECK(used.by_caller);
  CHECK(resolve(world.segment, *flow, {}, kCaller).policy == 0);
  CHECK(resolve(world.segment, *flow, {}, kCaller).by_caller);

  REQUIRE(bind(world.segment, kCaller, 1));
  used = resolve(world.segment, *flow, {}, kOtherThread);
  CHECK(used.policy == 1);
  CHECK_FALSE(used.by_caller);
  flow->owner_tid = 0;  // cleared
  CHECK(resolve(world.segment, *flow, {}, kOtherThread).policy == 2);
}

TEST_CASE("a binding to no policy frees its thread from the project's") {
  World world;
  world.publish(row_of({Fault::Latency}));
  Flow* flow = world.open();
  REQUIRE(bind(world.segment, kCaller, -1));
  CHECK(resolved(world, flow) == -1);
  CHECK(resolve(world.segment, *flow, {}, kOtherThread).policy == 0);
}

TEST_CASE("what is bound to a withdrawn policy falls back to the next binding until the policy is back") {
  World world;
  for (u32 policy = 0; policy < 4; policy++) world.publish(row_of({Fault::Latency}), {}, policy);
  Flow* flow = world.open();
  flow->bound_policy = 3;
  REQUIRE(bind(world.segment, kCaller, 2));
  REQUIRE(bind(world.segment, {kProcess, 0}, 1));
  for (u32 policy : {3u, 2u, 1u, 0u}) {
    CHECK(resolved(world, flow) == static_cast<i32>(policy));
    set_withdrawn(world.segment, policy, true);
  }
  CHECK(resolved(world, flow) == -1);
  set_withdrawn(world.segment, 2, false);
  CHECK(resolved(world, flow) == 2);
}

TEST_CASE("a policy that was never written, or lies outside the table, is none") {
  World world;
  Flow* flow = world.open();
  CHECK(resolved(world, flow) == -1);
  for (i32 policy : {-1, 4, 1 << 30}) {
    flow->bound_policy = policy;
    world.segment.header->default_policy = policy;
    CHECK(resolved(world, flow) == -1);
  }
}

TEST_CASE("the end that connected carries the faults; the other end only a policy bound to it") {
  World world;
  world.publish(row_of({Fault::Latency}));
  world.publish(row_of({Fault::Latency}), {}, 1);
  Flow* flow = world.open(kAccepted);
  CHECK(resolved(world, flow) == 0);
  flow->carried_by_peer = 1;
  CHECK(resolved(world, flow) == -1);
  flow->bound_policy = 1;
  CHECK(resolved(world, flow) == 1);
}

TEST_CASE("without targets every network flow is meant, and no unix socket") {
  World world;
  world.publish(row_of({Fault::Latency}));
  CHECK(resolved(world, world.open(kStream)) == 0);
  CHECK(resolved(world, world.open(kDatagram)) == 0);
  CHECK(resolved(world, world.open({.protocol = Protocol::Unix})) == -1);
}

TEST_CASE("targets by network: IPv4 prefixes count from the mapped address, IPv6 from its own") {
  World world;
  Target six = {};
  six.address[0] = 0x20;
  six.address[1] = 0x01;
  six.prefix_length = 16;
  world.publish(row_of({Fault::Latency}), {rule_net(10, 0, 0, 0, 8), rule_net(192, 168, 1, 7, 32), six});
  CHECK(resolved(world, to_ipv4(world, 10, 1, 2, 3, 80)) == 0);
  CHECK(resolved(world, to_ipv4(world, 11, 1, 2, 3, 80)) == -1);
  CHECK(resolved(world, to_ipv4(world, 192, 168, 1, 7, 80)) == 0);
  CHECK(resolved(world, to_ipv4(world, 192, 168, 1, 6, 80)) == -1);
  Flow* flow = world.open();
  flow->peer[0] = 0x20;
  flow->peer[1] = 0x01;
  flow->peer[15] = 1;
  CHECK(resolved(world, flow) == 0);
  flow->peer[1] = 0x02;
  CHECK(resolved(world, flow) == -1);
}

TEST_CASE("targets by port and protocol; every part of a rule must hold") {
  World world;
  Target ports = rule_net(10, 0, 0, 0, 8);
  ports.protocol = static_cast<u8>(Protocol::Tcp);
  ports.port_ranges = 2;
  ports.port_low[0] = 80, ports.port_high[0] = 90;
  ports.port_low[1] = 443, ports.port_high[1] = 443;
  world.publish(row_of({Fault::Latency}), {ports});
  for (u16 port : {80, 85, 90, 443}) CHECK(resolved(world, to_ipv4(world, 10, 0, 0, 1, port)) == 0);
  for (u16 port : {79, 91, 442, 444, 0}) CHECK(resolved(world, to_ipv4(world, 10, 0, 0, 1, port)) == -1);
  CHECK(resolved(world, to_ipv4(world, 10, 0, 0, 1, 80, kDatagram)) == -1);
  CHECK(resolved(world, to_ipv4(world, 11, 0, 0, 1, 80)) == -1);
  Target any = rule();
  any.protocol = static_cast<u8>(Protocol::Udp);
  world.publish(row_of({Fault::Latency}), {any});
  CHECK(resolved(world, to_ipv4(world, 10, 0, 0, 1, 53, kDatagram)) == 0);
  CHECK(resolved(world, to_ipv4(world, 10, 0, 0, 1, 53)) == -1);
}

TEST_CASE("a target by host name needs the name to be known") {
  World world;
  world.publish(row_of({Fault::Latency}), {rule_named(NameKind::Hostname, "*.internal")});
  Flow* flow = world.open();
  CHECK(resolved(world, flow) == -1);
  CHECK(resolved(world, flow, {.host = "api.internal"}) == 0);
  CHECK(resolved(world, flow, {.host = "api.example"}) == -1);
  CHECK_FALSE(resolve(world.segment, *flow, {}, kCaller).wants_sni);
}

TEST_CASE("a target by SNI waits for the ClientHello, unless another rule matches at once") {
  World world;
  world.publish(row_of({Fault::Latency}), {rule_named(NameKind::Sni, "api.internal")});
  Flow* flow = to_ipv4(world, 10, 0, 0, 1, 443);
  Resolution before = resolve(world.segment, *flow, {}, kCaller);
  CHECK(before.policy == -1);
  CHECK(before.wants_sni);
  Resolution after = resolve(world.segment, *flow, {.sni = "api.internal"}, kCaller);
  CHECK(after.policy == 0);
  CHECK_FALSE(after.wants_sni);
  Resolution other = resolve(world.segment, *flow, {.sni = "example.com"}, kCaller);
  CHECK(other.policy == -1);
  CHECK_FALSE(other.wants_sni);

  world.publish(row_of({Fault::Latency}), {rule_named(NameKind::Sni, "api.internal"), rule_net(10, 0, 0, 0, 8)});
  Resolution both = resolve(world.segment, *flow, {}, kCaller);
  CHECK(both.policy == 0);
  CHECK_FALSE(both.wants_sni);
}

TEST_CASE("unix sockets are meant only by unix rules, by path or all of them") {
  World world;
  Target by_path = rule_named(NameKind::UnixPath, "/run/*.sock");
  by_path.protocol = static_cast<u8>(Protocol::Unix);
  Flow* flow = world.open({.protocol = Protocol::Unix});
  world.publish(row_of({Fault::Latency}), {by_path});
  CHECK(resolved(world, flow, {.unix_path = "/run/app.sock"}) == 0);
  CHECK(resolved(world, flow, {.unix_path = "/tmp/app.sock"}) == -1);
  CHECK(resolved(world, world.open()) == -1);
  by_path.name[0] = 0;
  world.publish(row_of({Fault::Latency}), {by_path});
  CHECK(resolved(world, flow) == 0);
  world.publish(row_of({Fault::Latency}), {rule()});  // "any" means any network protocol
  CHECK(resolved(world, flow) == -1);
}

TEST_CASE("a lookup is faulted by dns effects, with targets by a rule of a host name alone") {
  World world;
  world.publish(row_of({Fault::Latency}));
  CHECK(resolve_lookup(world.segment, "api.internal", 0) == -1);
  for (Fault fault : {Fault::DnsDelay, Fault::DnsTimeout, Fault::DnsNxdomain}) {
    world.publish(row_of({fault}));
    CHECK(resolve_lookup(world.segment, "api.internal", 0) == 0);
  }
  Target with_port = rule_named(NameKind::Hostname, "api.internal");
  with_port.port_ranges = 1;
  with_port.port_low[0] = with_port.port_high[0] = 443;
  Target with_protocol = rule_named(NameKind::Hostname, "api.internal");
  with_protocol.protocol = static_cast<u8>(Protocol::Tcp);
  world.publish(row_of({Fault::DnsDelay}), {with_port, with_protocol});
  CHECK(resolve_lookup(world.segment, "api.internal", 0) == -1);
  world.publish(row_of({Fault::DnsDelay}), {with_port, rule_named(NameKind::Hostname, "api.*")});
  CHECK(resolve_lookup(world.segment, "api.internal", 0) == 0);
  CHECK(resolve_lookup(world.segment, "www.internal", 0) == -1);
}

TEST_CASE("a ramp grows evenly from nothing to all") {
  Row row = row_of({Fault::Latency});
  CHECK(schedule_scale_ppm(row, 0) == kCertainPpm);  // no schedule: always
  row.schedule_kind = static_cast<u8>(ScheduleKind::Ramp);
  row.schedule_first_ns = 10 * kSecond;
  CHECK(schedule_scale_ppm(row, 0) == 0);
  CHECK(schedule_scale_ppm(row, kSecond) == 100000);
  CHECK(schedule_scale_ppm(row, 5 * kSecond) == 500000);
  CHECK(schedule_scale_ppm(row, 10 * kSecond - 1) == 999999);
  CHECK(schedule_scale_ppm(row, 10 * kSecond) == kCertainPpm);
  CHECK(schedule_scale_ppm(row, ~u64{0}) == kCertainPpm);
}

TEST_CASE("a spike holds for the first part of each period, flapping goes on and off") {
  Row spike = row_of({Fault::Latency});
  spike.schedule_kind = static_cast<u8>(ScheduleKind::Spike);
  spike.schedule_first_ns = 30 * kSecond;
  spike.schedule_second_ns = 5 * kSecond;
  Row flapping = spike;
  flapping.schedule_kind = static_cast<u8>(ScheduleKind::Flapping);
  flapping.schedule_first_ns = 5 * kSecond;
  flapping.schedule_second_ns = 25 * kSecond;
  for (const Row& row : {spike, flapping}) {
    for (u64 period : {0, 1, 1000}) {
      u64 start = period * 30 * kSecond;
      CHECK(schedule_scale_ppm(row, start) == kCertainPpm);
      CHECK(schedule_scale_ppm(row, start + 5 * kSecond - 1) == kCertainPpm);
      CHECK(schedule_scale_ppm(row, start + 5 * kSecond) == 0);
      CHECK(schedule_scale_ppm(row, start + 30 * kSecond - 1) == 0);
    }
  }
}

TEST_CASE("a schedule out of bounds, as only a broken segment holds it, divides nothing by zero") {
  for (ScheduleKind kind : {ScheduleKind::Ramp, ScheduleKind::Spike, ScheduleKind::Flapping}) {
    Row row = row_of({Fault::Latency});
    row.schedule_kind = static_cast<u8>(kind);
    CHECK(schedule_scale_ppm(row, 0) == kCertainPpm);
  }
}
