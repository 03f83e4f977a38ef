// A valid segment in which the input has overwritten bytes, opened and used as an interceptor does: whatever stands
// in shared memory, nothing outside it is touched and every loop ends.
//
// Input: two bytes by how much the file is cut short (in units of 64 bytes), then any number of overwrites: region
// (0 the header, else 1 + Region), offset in it (two bytes, little endian), length - 1 (of 1 to 32), the bytes.
#include <memory>

#include <sanitizer/asan_interface.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "expect.h"
#include "segment/segment.h"
#include "wire/match.h"

using namespace mishap;

// A slot that its writer left half filled is waited for. No other writer lives here, so the waits, which would make
// up nearly all of a run, take no time; that they are bounded is still what is tested.
extern "C" int nanosleep(const timespec*, timespec*) { return 0; }
extern "C" int sched_yield() { return 0; }

namespace {

constexpr Capacities kCapacities = {2, 4, 4, 4, 8, 8, 2, 4};
constexpr u64 kCookies[] = {1, 2, 9, ~0ull};  // in the table, in the table, new, and no socket's
constexpr u64 kDelayNs = 1000000;  // of the only samples recorded
constexpr i32 kPids[] = {100, 101, 0, -1};
constexpr Caller kCaller = {process_key(100, 1), 101};

FlowOpening opening_of(u64 cookie) {
  FlowOpening opening = {};
  opening.cookie = cookie;
  opening.key = cookie * 7;
  opening.role = Role::Connector;
  opening.protocol = Protocol::Tcp;
  opening.peer_port = 443;
  opening.ordinal = 1;
  opening.pid = 100;
  opening.bound_policy = -1;
  return opening;
}

// The segment before the input touches it: one policy with two rules, and every table in use.
void fill(u8* base, u64 size) {
  format(base, size, kCapacities);
  Segment segment;
  expect(check(base, size, &segment) == AttachError::None);
  segment.header->state = static_cast<u32>(State::Active);
  segment.header->lease_expiry_ns = ~0ull;
  segment.header->default_policy = 0;
  u32 owner_tid = 100;
  memcpy(segment.header->owner_lock, &owner_tid, sizeof(owner_tid));

  Row row = {};
  strcpy(row.name, "fuzzed");
  row.faults = bit(Fault::Latency) | bit(Fault::PayloadMutation);
  row.target_count = 2;
  row.inject_length = row.find_length = row.replace_length = 4;
  Target rules[2] = {};
  rules[0].name_kind = static_cast<u8>(NameKind::Hostname);
  strcpy(rules[0].name, "*.example.com");
  rules[1].prefix_length = 104;
  rules[1].port_ranges = 1;
  expect(publish_row(segment, 0, row, rules, 2));
  expect(bind(segment, kCaller, 0));
  expect(register_process(segment, 100, 1, "0.1", "/usr/bin/program", 1) != nullptr);
  Owner owner = {};
  owner.cookie = 1;
  publish_owner(segment, owner);
  bool fresh;
  for (u64 cookie : {1, 2, 3}) expect(open_flow(segment, opening_of(cookie), &fresh) && fresh);
  expect(push_event(segment, Event{}));
}

// Reads every byte of what a reader hands out: memcpy is checked by AddressSanitizer over its whole range, and the
// compiler may not drop it.
template <class T>
void touch(const T* row) {
  alignas(T) u8 copy[sizeof(T)];
  memcpy(copy, row, sizeof(T));
  asm volatile("" : : "r"(copy) : "memory");
}

void use_policy(const Segment& segment, i32 policy) {
  u32 sequence = row_sequence(segment, policy);
  Row row;
  if (read_row(segment, policy, &row)) {
    expect(row.inject_length <= sizeof(row.inject_data) && row.find_length <= sizeof(row.replace_find));
    expect(row.replace_length <= sizeof(row.replace_with) && row.target_count <= kTargetsPerPolicy);
    for (u32 rule = 0; rule <= row.target_count; rule++) {
      Target target;
      if (!read_target(segment, policy, rule, sequence, &target)) continue;
      expect(target.port_ranges <= kPortRanges && memchr(target.name, 0, sizeof(target.name)));
      wire::name_matches(target.name, "api.example.com");
      wire::address_matches(target.address, target.prefix_length, target.address);
    }
  }
  for (Direction direction : {Direction::Uplink, Direction::Downlink}) {
    count_applied(segment, policy, Fault::PacketLoss, direction, 1);
    record_time(segment, policy, Fault::Latency, direction, kDelayNs, kDelayNs);
    if (Link* link = link_of(segment, policy, direction)) touch(link);
  }
  count_verdict(segment, policy, Stage::PostRouting, Verdict::Skipped);
}

void use(const Segment& segment) {
  in_force(segment);
  lease_holds(segment, 1);
  touch(segment.header);
  for (i32 policy : {-1, 0, 1, 0x7fffffff, bound_policy(segment, kCaller)}) use_policy(segment, policy);
  // Both ends of the timed histograms, whose rows are the largest.
  for (u32 fault = 0; fault < kFaults; fault++) {
    Histogram* histogram = histogram_of(segment, 0, static_cast<Fault>(fault), Direction::Downlink);
    if (histogram) touch(&histogram->buckets[kHistogramBuckets - 1]);
  }
  for (u64 cookie : kCookies) {
    if (Flow* flow = find_flow(segment, cookie)) touch(flow);
    bool fresh;
    if (Flow* flow = open_flow(segment, opening_of(cookie), &fresh)) {
      add(&flow->up.ops, u64{1});
      store(&flow->state, static_cast<u8>(FlowState::Idle));
      fold_flow(segment, flow);
    }
    if (Owner* owner = find_owner(segment, cookie)) touch(owner);
    Owner owner = {};
    owner.cookie = cookie;
    publish_owner(segment, owner);
  }
  for (i32 pid : kPids) {
    bound_policy(segment, {process_key(pid, 1), 0});
    if (Process* process = find_process(segment, pid, 1)) touch(process);
    register_process(segment, pid, 2, "0.2/1", "/opt/a/path/that/is/longer/than/the/field/that/has/to/hold/its/end", 1);
  }
  for (i32 policy : {1, -1, kUnbound}) bind(segment, {process_key(200, 1), 3}, policy);
  bind_socket(segment, kCookies[2], 3, 1, kCaller, 1);
  for (u32 i = 0; i < 2; i++) {
    const i32 policy = claim_policy(segment, process_key(200, 1), i);
    expect(policy < static_cast<i32>(segment.count.policies));
    if (policy >= 0) release_policy(segment, static_cast<u32>(policy), process_key(200, 1));
  }
  store(&segment.header->lease_expiry_ns, u64{0});  // or a writer might wait for a reader that there is not
  for (u32 i = 0; i < 10; i++) push_event(segment, Event{});
  u32 patience = 0;
  Event event;
  for (u32 i = 0; i < 10; i++) pop_event(segment, &event, &patience);
  // All that was found to lie inside the segment does.
  touch(segment.rows + segment.count.policies - 1);
  touch(segment.flows);
  touch(segment.flows + segment.count.flows - 1);
  touch(segment.owners + segment.count.owners - 1);
  touch(segment.bindings + segment.count.bindings - 1);
  touch(segment.processes + segment.count.processes - 1);
  touch(segment.events + segment.count.events - 1);
  touch(segment.decided + segment.count.decided - 1);
  for (u32 reason = 0; reason < kFallbacks; reason++) count_fallback(segment, static_cast<Fallback>(reason));
}

// The valid segment, and the copy that is tampered with.
struct Images {
  u64 size = segment_size(kCapacities);
  std::unique_ptr<u8[]> valid{new u8[size]()};
  std::unique_ptr<u8[]> tampered{new u8[size]};
  const Header* header = reinterpret_cast<const Header*>(valid.get());
  Images() {
    fill(valid.get(), size);
    memcpy(tampered.get(), valid.get(), size);
  }
  void restore(u64 offset, u64 length) { memcpy(tampered.get() + offset, valid.get() + offset, length); }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  static Images images;
  const RegionEntry* regions = images.header->regions;
  const RegionEntry& histograms = regions[static_cast<u32>(Region::Histograms)];
  u64 histograms_end = histograms.offset + static_cast<u64>(histograms.count) * histograms.stride;
  if (size < 2) return 0;

  u8* base = images.tampered.get();
  u64 kept = images.size - ((data[0] | data[1] << 8) * 64u) % images.size;
  bool histograms_changed = false;
  for (size_t at = 2; at + 4 < size;) {
    u32 where = data[at] % (kRegions + 1);
    u64 start = where == 0 ? 0 : regions[where - 1].offset;
    u64 room = where == 0 ? sizeof(Header) : static_cast<u64>(regions[where - 1].count) * regions[where - 1].stride;
    u64 offset = (data[at + 1] | data[at + 2] << 8) % room;
    u64 length = data[at + 3] % 32 + 1u;
    at += 4;
    if (length > size - at) length = size - at;
    if (length > room - offset) length = room - offset;
    memcpy(base + start + offset, data + at, length);
    histograms_changed |= where == 1 + static_cast<u32>(Region::Histograms);
    at += length;
  }

  // Regions that were moved, and still passed the check, may have led writes anywhere.
  bool regions_moved = memcmp(reinterpret_cast<Header*>(base)->regions, regions, sizeof(Header::regions)) != 0;
  Segment segment;
  ASAN_POISON_MEMORY_REGION(base + kept, images.size - kept);
  bool accepted = check(base, kept, &segment) == AttachError::None;
  if (accepted) use(segment);
  ASAN_UNPOISON_MEMORY_REGION(base + kept, images.size - kept);

  // Nearly all of the segment is histograms, of which use() changes two (latency, up and down), one bucket each:
  // putting back only what may have changed is what makes a million runs a matter of seconds.
  if (histograms_changed || (accepted && regions_moved)) {
    images.restore(0, images.size);
  } else {
    images.restore(0, histograms.offset);
    for (u64 at : {histograms.offset, histograms.offset + sizeof(Histogram)}) {
      images.restore(at, offsetof(Histogram, buckets));
      images.restore(at + offsetof(Histogram, buckets) + sizeof(u32) * histogram_bucket(kDelayNs), sizeof(u32));
    }
    images.restore(histograms_end, images.size - histograms_end);
  }
  return 0;
}
