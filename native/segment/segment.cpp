// Opening, checking and walking a segment; see segment.h.
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>


#include <initializer_list>

#include "words.h"

namespace mishap {
namespace {

constexpr u32 kMaxRows = 1u << 22;  // no region holds more, whatever its header says
constexpr u32 kRowRetries = 64;
constexpr u32 kOpenAttempts = 96;
constexpr u64 kBeingFilled = ~u64{0};  // a cookie that no socket has: neither free nor findable

struct RegionShape {
  u32 stride;
  u32 per;  // rows of this region for each of the capacity it hangs on
};
constexpr RegionShape kShapes[kRegions] = {
    {sizeof(Row), 1},   {sizeof(Target), kTargetsPerPolicy},
    {sizeof(Binding), 1}, {sizeof(Process), 1},
    {sizeof(Owner), 1}, {sizeof(Flow), 1},
    {sizeof(Link), kDirections}, {sizeof(Stats), 1},
    {sizeof(Histogram), 1}, {sizeof(Event), 1},
    {sizeof(Decided), 1},
};

u32 capacity_of(const Capacities& c, u32 region) {
  switch (static_cast<Region>(region)) {
    case Region::Bindings: return c.bindings;
    case Region::Processes: return c.processes;
    case Region::Owners: return c.owners;
    case Region::Flows: return c.flows;
    case Region::Journal: return c.events;
    case Region::Histograms: return c.histograms;
    case Region::Decided: return c.decided;
    default: return c.policies;
  }
}

u64 aligned(u64 offset) { return (offset + 63) & ~63ull; }

u64 mix(u64 x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

void copy_text(char* to, u32 capacity, const char* from) {
  u32 n = 0;
  for (; n + 1 < capacity && from[n]; n++) to[n] = from[n];
  to[n] = 0;
}
// The end of a text, where it does not fit: the end of a path says more than its start.
void copy_tail(char* to, u32 capacity, const char* from) {
  size_t length = strlen(from);
  copy_text(to, capacity, length < capacity ? from : from + (length - capacity + 1));
}

}  // namespace

const char* describe(AttachError error) {
  switch (error) {
    case AttachError::None: return "valid";
    case AttachError::Missing: return "it is not there";
    case AttachError::Foreign: return "it is not a regular file of this user with mode 0600";
    case AttachError::Truncated: return "it is shorter than its header says";
    case AttachError::BadMagic: return "it does not start with mishap's magic";
    case AttachError::BadVersion: return "it has another ABI version";
    case AttachError::BadLayout: return "it has another layout";
    case AttachError::BadRegion: return "a region lies outside it";
    case AttachError::NoMap: return "it could not be mapped";
  }
  return "unknown";
}

u64 segment_size(const Capacities& capacities) {
  u64 size = aligned(sizeof(Header));
  for (u32 r = 0; r < kRegions; r++) size = aligned(size + static_cast<u64>(capacity_of(capacities, r)) * kShapes[r].per * kShapes[r].stride);
  return size;
}

void format(u8* base, u64 size, const Capacities& capacities) {
  Header* header = reinterpret_cast<Header*>(base);
  u64 offset = aligned(sizeof(Header));
  for (u32 r = 0; r < kRegions; r++) {
    header->regions[r] = {offset, capacity_of(capacities, r) * kShapes[r].per, kShapes[r].stride};
    offset = aligned(offset + static_cast<u64>(header->regions[r].count) * kShapes[r].stride);
  }
  header->abi_version = kAbiVersion;
  header->layout_hash = kLayoutHash;
  header->total_size = size;
  header->default_policy = -1;
  header->generation = 1;
  store(&header->state, static_cast<u32>(State::Paused));
  store_release(&header->magic, kMagic);
}

AttachError check(u8* base, u64 size, Segment* out) {
  if (size < sizeof(Header)) return AttachError::Truncated;
  Header* header = reinterpret_cast<Header*>(base);
  if (load_acquire(&header->magic) != kMagic) return AttachError::BadMagic;
  if (load(&header->abi_version) != kAbiVersion) return AttachError::BadVersion;
  if (load(&header->layout_hash) != kLayoutHash) return AttachError::BadLayout;
  if (load(&header->total_size) > size) return AttachError::Truncated;

  u8* at[kRegions];
  u32 rows[kRegions];
  for (u32 r = 0; r < kRegions; r++) {
    u64 offset = load(&header->regions[r].offset);
    u32 count = load(&header->regions[r].count);
    u32 stride = load(&header->regions[r].stride);
    if (stride != kShapes[r].stride || offset % 8 || offset < sizeof(Header)) return AttachError::BadRegion;
    if (count == 0 || count > kMaxRows || count % kShapes[r].per) return AttachError::BadRegion;
#ifndef MISHAP_FUZZ_PLANTED_BUG
    if (offset > size || static_cast<u64>(count) * stride > size - offset) return AttachError::BadRegion;
#endif
    at[r] = base + offset;
    rows[r] = count;
  }
  auto region = [&](Region r) { return at[static_cast<u32>(r)]; };
  auto count = [&](Region r) { return rows[static_cast<u32>(r)] / kShapes[static_cast<u32>(r)].per; };
  u32 policies = count(Region::Rows);
  if (policies > kMaxPolicies) return AttachError::BadRegion;
  for (Region r : {Region::Targets, Region::Links, Region::Stats})
    if (count(r) != policies) return AttachError::BadRegion;

  out->base = base;
  out->size = size;
  out->header = header;
  out->rows = reinterpret_cast<Row*>(region(Region::Rows));
  out->targets = reinterpret_cast<Target*>(region(Region::Targets));
  out->bindings = reinterpret_cast<Binding*>(region(Region::Bindings));
  out->processes = reinterpret_cast<Process*>(region(Region::Processes));
  out->owners = reinterpret_cast<Owner*>(region(Region::Owners));
  out->flows = reinterpret_cast<Flow*>(region(Region::Flows));
  out->links = reinterpret_cast<Link*>(region(Region::Links));
  out->stats = reinterpret_cast<Stats*>(region(Region::Stats));
  out->histograms = reinterpret_cast<Histogram*>(region(Region::Histograms));
  out->events = reinterpret_cast<Event*>(region(Region::Journal));
  out->decided = reinterpret_cast<Decided*>(region(Region::Decided));
  out->count = {policies, count(Region::Bindings), count(Region::Processes), count(Region::Owners), count(Region::Flows), count(Region::Journal), count(Region::Histograms), count(Region::Decided)};
  return AttachError::None;
}

AttachError attach(const char* path, Segment* out) {
  int kept = errno;
  AttachError error = AttachError::Missing;
  int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
  if (fd >= 0) {
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077)) {
      error = AttachError::Foreign;
    } else if (st.st_size < static_cast<off_t>(sizeof(Header))) {
      error = AttachError::Truncated;
    } else {
      u64 size = static_cast<u64>(st.st_size);
      void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
      error = base == MAP_FAILED ? AttachError::NoMap : check(static_cast<u8*>(base), size, out);
      if (base != MAP_FAILED && error != AttachError::None) munmap(base, size);
    }
    close(fd);
  }
  errno = kept;
  return error;
}

void detach(Segment* segment) {
  if (segment->base) munmap(segment->base, segment->size);
  *segment = {};
}

bool lease_holds(const Segment& segment, u64 now_ns) {
  return in_force(segment) && now_ns < load(&segment.header->lease_expiry_ns);
}

void count_fallback(const Segment& segment, Fallback reason) { add(&segment.header->fallbacks[static_cast<u32>(reason)], u64{1}); }

bool read_row(const Segment& segment, i32 policy, Row* out) {
  if (policy < 0 || static_cast<u32>(policy) >= segment.count.policies) {
    count_fallback(segment, Fallback::BadIndex);
    return false;
  }
  return copy_row(segment, &segment.rows[policy], out);
}

bool copy_row(const Segment& segment, const Row* row, Row* out) {
  for (u32 retry = 0; retry < kRowRetries; retry++) {
    u32 before = load_acquire(&row->seq);
    if (before == 0) return false;
    if (before & 1) continue;
    copy_words(out, row);
    fence_acquire();
    if (load(&row->seq) != before) continue;
    out->seq = before;
    // Lengths index into the row's own arrays: never trusted beyond them.
    if (out->inject_length > sizeof(out->inject_data) || out->find_length > sizeof(out->replace_find) ||
        out->replace_length > sizeof(out->replace_with) || out->target_count > kTargetsPerPolicy) {
      count_fallback(segment, Fallback::BadIndex);
      return false;
    }
    return true;
  }
  count_fallback(segment, Fallback::RowBusy);
  return false;
}

bool read_target(const Segment& segment, i32 policy, u32 rule, u32 sequence, Target* out) {
  if (policy < 0 || static_cast<u32>(policy) >= segment.count.policies || rule >= kTargetsPerPolicy) return false;
  copy_words(out, &segment.targets[static_cast<u32>(policy) * kTargetsPerPolicy + rule]);
  fence_acquire();
  if (load(&segment.rows[policy].seq) != sequence) return false;
  out->name[sizeof(out->name) - 1] = 0;
  return out->port_ranges <= kPortRanges && out->prefix_length <= 128;
}

namespace {

// Writes a row under its sequence lock, then lets resolved flows look again.
template <class Write>
void rewrite(const Segment& segment, u32 policy, Write write) {
  write_row(&segment.rows[policy], write);
  add(&segment.header->generation, 1u);
}

void move_count(u64* to, u64* from) {
  if (u64 counted = load(from)) {
    add(from, u64{0} - counted);
    add(to, counted);
  }
}

// What a slot's last policy did is counted with the earlier ones, so that the next begins at nothing.
void forget_policy(const Segment& segment, u32 policy) {
  for (u32 i = 0; i < segment.count.flows; i++) {
    Flow* flow = &segment.flows[i];
    if (load_acquire(&flow->cookie) == 0 || load(&flow->policy) != static_cast<i32>(policy)) continue;
    fold_flow(segment, flow);
    store(&flow->policy, -1);
  }
  const u32 earlier = segment.count.policies - 1;
  Stats *from = &segment.stats[policy], *to = &segment.stats[earlier];
  for (u32 i = 0; i < offsetof(Stats, histograms) / sizeof(u64); i++) move_count(reinterpret_cast<u64*>(to) + i, reinterpret_cast<u64*>(from) + i);
  for (u32 at = 0; at < kTimedFaults * kDirections; at++) {
    const Fault fault = static_cast<Fault>(at / kDirections);
    const Direction direction = static_cast<Direction>(at % kDirections);
    Histogram* old = histogram_of(segment, static_cast<i32>(policy), fault, direction);
    if (!old || load(&old->count) == 0) continue;
    Histogram nowhere = {};
    Histogram* sum = own_histogram(segment, static_cast<i32>(earlier), fault, direction);
    if (!sum) sum = &nowhere;
    for (u64 Histogram::*field : {&Histogram::count, &Histogram::sum_ns, &Histogram::asked_sum_ns}) move_count(&(sum->*field), &(old->*field));
    if (u64 least = load(&old->min_ns); least && (load(&sum->min_ns) == 0 || least < load(&sum->min_ns))) store(&sum->min_ns, least);
    if (u64 most = load(&old->max_ns); most > load(&sum->max_ns)) store(&sum->max_ns, most);
    store(&old->min_ns, u64{0});
    store(&old->max_ns, u64{0});
    for (u32 b = 0; b < kHistogramBuckets; b++)
      if (u32 counted = load(&old->buckets[b])) {
        add(&old->buckets[b], 0u - counted);
        add(&sum->buckets[b], counted);
      }
  }
}

bool is_dead(i32 pid) {
  int kept = errno;
  bool dead = kill(pid, 0) != 0 && errno == ESRCH;
  errno = kept;
  return dead;
}

}  // namespace

bool publish_row(const Segment& segment, u32 policy, const Row& row, const Target* rules, u32 rule_count) {
  if (policy >= segment.count.policies || rule_count > kTargetsPerPolicy) return false;
  u32 needs = 0;
  for (u32 i = 0; i < rule_count; i++) {
    if (rules[i].protocol == static_cast<u8>(Protocol::Unix)) needs |= kHeaderUnix;
    const NameKind kind = static_cast<NameKind>(rules[i].name_kind);
    if (kind == NameKind::Hostname || kind == NameKind::Sni) needs |= kHeaderNames;
  }
  if (needs) __atomic_fetch_or(&segment.header->flags, needs, __ATOMIC_RELAXED);
  rewrite(segment, policy, [&](Row* to) {
    store_row(to, row);
    for (u32 i = 0; i < rule_count; i++) store_words(&segment.targets[policy * kTargetsPerPolicy + i], rules[i], 0);
  });
  return true;
}

bool in_use(const Segment& segment, i32 policy) {
  return row_sequence(segment, policy) && !load(&segment.rows[policy].withdrawn);
}

void set_withdrawn(const Segment& segment, u32 policy, bool withdrawn) {
  if (row_sequence(segment, static_cast<i32>(policy)) == 0) return;
  rewrite(segment, policy, [&](Row* row) { store(&row->withdrawn, static_cast<u8>(withdrawn)); });
}

i32 claim_policy(const Segment& segment, u64 process, u32 from) {
  const u32 slots = segment.count.policies - 1;  // the last is what earlier policies did
  for (bool used : {false, true})
    for (u32 i = 0; i < slots; i++) {
      const u32 policy = (from + i) % slots;
      Row* row = &segment.rows[policy];
      const u64 holder = load(&row->holder);
      if (used != (load(&row->seq) != 0) || (holder && !is_dead(pid_of(holder)))) continue;
      if (!swap_if(&row->holder, holder, process)) continue;
      if (used) forget_policy(segment, policy);
      return static_cast<i32>(policy);
    }
  return -1;
}

void release_policy(const Segment& segment, u32 policy, u64 process) {
  if (policy >= segment.count.policies) return;
  set_withdrawn(segment, policy, true);
  swap_if(&segment.rows[policy].holder, process, u64{0});
}

Flow* find_flow(const Segment& segment, u64 cookie) {
  u64 start = mix(cookie);
  for (u32 i = 0; i < kProbeWindow; i++) {
    Flow* flow = &segment.flows[(start + i) % segment.count.flows];
    u64 found = load_acquire(&flow->cookie);
    if (found == cookie) return flow;
    if (found == 0) return nullptr;
  }
  return nullptr;
}

void fold_flow(const Segment& segment, Flow* flow) {
  Stats* stats = stats_of(segment, load(&flow->policy));
  for (u32 d = 0; d < kDirections; d++) {
    FlowDirection* side = side_of(flow, static_cast<Direction>(d));
    u64 units = units_begun(load(&side->progress)), ops = load(&side->ops);
    if (stats) {
      add(&stats->folded_units[d], units - load(&side->folded_units));
      add(&stats->folded_ops[d], ops - load(&side->folded_ops));
    }
    store(&side->folded_units, units);
    store(&side->folded_ops, ops);
  }
}

void account(const Segment& segment, Flow* flow, Direction direction, Account reason, u64 bytes) {
  if (bytes == 0) return;
  const bool more = reason == Account::Injected || reason == Account::Duplicated;
  add(&side_of(flow, direction)->adjusted, static_cast<i64>(more ? bytes : u64{0} - bytes));
  if (Stats* stats = stats_of(segment, load(&flow->policy)))
    add(&stats->accounts[static_cast<u32>(reason) * kDirections + static_cast<u32>(direction)], bytes);
}

// The row of a process, or of the last one that had this pid.
static Process* last_process(const Segment& segment, i32 pid) {
  const u64 start = mix(static_cast<u64>(pid));
  Process* last = nullptr;
  for (u32 i = 0; i < kProbeWindow; i++) {
    Process* process = &segment.processes[(start + i) % segment.count.processes];
    if (load_acquire(&process->state) == static_cast<u32>(ProcessState::Free)) break;
    if (load(&process->pid) == pid && (!last || load(&process->since_ns) > load(&last->since_ns))) last = process;
  }
  return last;
}

// Before a flow's row goes to another: what it accounts for is added to its process's.
static void fold_accounts(const Segment& segment, Flow* flow) {
  const bool counts = load(&flow->role) != static_cast<u8>(Role::Resolver) && (load(&segment.header->flags) & kHeaderKernel);
  Process* process = counts ? last_process(segment, load(&flow->pid)) : nullptr;
  if (!process) return;
  add(&process->folded_flows, u64{1});
  for (u32 d = 0; d < kDirections; d++) {
    const FlowDirection* side = side_of(flow, static_cast<Direction>(d));
    add(&process->folded_called[d], load(&side->called));
    add(&process->folded_adjusted[d], load(&side->adjusted));
  }
}

// Whoever fills a slot in needs a microsecond, unless it was preempted: yields, then up to 16 ms of short sleeps.
static void let_others_run(u32 attempt) {
  const timespec nap = {0, 500'000};
  const int kept = errno;
  if (attempt < kOpenAttempts - 32) sched_yield();
  else nanosleep(&nap, nullptr);
  errno = kept;
}

Flow* open_flow(const Segment& segment, const FlowOpening& opening, bool* fresh) {
  *fresh = false;
  u64 start = mix(opening.cookie);
  for (u32 attempt = 0; attempt < kOpenAttempts; attempt++) {
    // A slot that is being filled in may become this very flow, so it is waited for; one that stays so was left by a
    // process that died, and is passed by in the last attempts.
    const bool patient = attempt < kOpenAttempts - 4;
    if (attempt > 0) let_others_run(attempt);
    Flow* slot = nullptr;
    u64 previous = 0;
    bool filling = false;
    for (u32 i = 0; i < kProbeWindow && !filling; i++) {
      Flow* flow = &segment.flows[(start + i) % segment.count.flows];
      u64 found = load_acquire(&flow->cookie);
      if (found == opening.cookie) return flow;
      if (found == kBeingFilled || (load(&flow->claim) & 1)) {
        filling = patient;
        continue;
      }
      if (found == 0) {
        slot = flow;
        previous = 0;
        break;
      }
      if (!slot && load(&flow->state) == static_cast<u8>(FlowState::Idle)) {
        slot = flow;
        previous = found;
      }
    }
    if (filling) continue;
    if (!slot) break;
    u32 claim = load(&slot->claim);
    if ((claim & 1) || !swap_if(&slot->claim, claim, claim + 1)) continue;
    // Between the look and the claim somebody may have filled it in, or its flow may have come back to life.
    if (load(&slot->cookie) != previous || (previous && load(&slot->state) != static_cast<u8>(FlowState::Idle))) {
      store_release(&slot->claim, claim);
      continue;
    }
    if (previous) {
      fold_flow(segment, slot);
      fold_accounts(segment, slot);
      add(&segment.header->folded_ops, load(&slot->up.ops) + load(&slot->down.ops));
    }
    store(&slot->cookie, kBeingFilled);
    Flow clean = {};
    clean.key = opening.key;
    clean.name_hash = opening.name_hash;
    clean.policy = -1;
    clean.bound_policy = opening.bound_policy;
    clean.role = static_cast<u8>(opening.role);
    clean.protocol = static_cast<u8>(opening.protocol);
    clean.peer_port = opening.peer_port;
    memcpy(clean.peer, opening.peer, sizeof(clean.peer));
    clean.ordinal = opening.ordinal;
    clean.pid = opening.pid;
    clean.owner_process = opening.owner.process;
    clean.owner_tid = opening.owner.tid;
    clean.claim = claim + 1;
    store_words(slot, clean, 1);
    store_release(&slot->cookie, opening.cookie);
    store_release(&slot->claim, claim + 2);
    if (opening.role != Role::Resolver) add(&segment.header->flows_opened, u64{1});  // a name looked up is no flow
    *fresh = true;
    return slot;
  }
  count_fallback(segment, Fallback::TableFull);
  return nullptr;
}

Owner* find_owner(const Segment& segment, u64 cookie) {
  u64 start = mix(cookie);
  for (u32 i = 0; i < kProbeWindow; i++) {
    Owner* owner = &segment.owners[(start + i) % segment.count.owners];
    u64 found = load_acquire(&owner->cookie);
    if (found == cookie) return owner;
    if (found == 0) return nullptr;
  }
  return nullptr;
}

void publish_owner(const Segment& segment, const Owner& owner) {
  u64 start = mix(owner.cookie);
  Owner* oldest = nullptr;
  for (u32 i = 0; i < kProbeWindow; i++) {
    Owner* slot = &segment.owners[(start + i) % segment.count.owners];
    u64 found = load_acquire(&slot->cookie);
    if (found == owner.cookie) {
      oldest = slot;
      break;
    }
    if (found == 0 && swap_if(&slot->cookie, u64{0}, kBeingFilled)) {
      store_words(slot, owner, 1);
      store_release(&slot->cookie, owner.cookie);
      return;
    }
    if (!oldest || load(&slot->created_ns) < load(&oldest->created_ns)) oldest = slot;
  }
  // A full window gives up its oldest entry: cookies are never reused, and old sockets are the likeliest to be gone.
  store(&oldest->cookie, kBeingFilled);
  store_words(oldest, owner, 1);
  store_release(&oldest->cookie, owner.cookie);
}

void bind_socket(const Segment& segment, u64 cookie, i32 fd, i32 policy, Caller owner, u64 now_ns) {
  Owner row = {};
  if (const Owner* known = find_owner(segment, cookie)) copy_words(&row, known);
  row.cookie = cookie;
  row.process = owner.process;
  row.pid = pid_of(owner.process);
  row.tid = owner.tid;
  row.fd = fd;
  row.bound_policy = policy;
  row.source = static_cast<u32>(OwnerSource::Interceptor);
  if (row.created_ns == 0) row.created_ns = now_ns;
  publish_owner(segment, row);
  if (Flow* flow = find_flow(segment, cookie)) {
    store(&flow->owner_process, owner.process);
    store(&flow->owner_tid, owner.tid);
    store(&flow->bound_policy, policy);
  }
  add(&segment.header->generation, 1u);
}

namespace {
u64 start_of_search(Caller of) { return mix(of.process ^ mix(static_cast<u64>(static_cast<u32>(of.tid)) + 1)); }
}  // namespace

bool find_binding(const Segment& segment, Caller of, i32* policy) {
  const u64 start = start_of_search(of);
  for (u32 i = 0; i < kProbeWindow; i++) {
    const Binding* binding = &segment.bindings[(start + i) % segment.count.bindings];
    u32 seq = load_acquire(&binding->seq);
    if (seq == 0) return false;
    if (seq & 1) continue;
    i32 bound = load(&binding->policy);
    bool same = load(&binding->process) == of.process && load(&binding->tid) == of.tid;
    fence_acquire();
    if (!same || load(&binding->seq) != seq || bound == kUnbound) continue;
    if (bound >= 0 && !in_use(segment, bound)) return false;
    *policy = bound;
    return true;
  }
  return false;
}

i32 bound_policy(const Segment& segment, Caller caller) {
  i32 policy;
  if (find_binding(segment, caller, &policy) || find_binding(segment, {caller.process, 0}, &policy)) return policy;
  policy = load(&segment.header->default_policy);
  return in_use(segment, policy) ? policy : -1;
}

bool bind(const Segment& segment, Caller to, i32 policy) {
  const u64 start = start_of_search(to);
  for (u32 attempt = 0; attempt < kRowRetries; attempt++) {
    Binding* slot = nullptr;
    for (u32 i = 0; i < kProbeWindow; i++) {
      Binding* binding = &segment.bindings[(start + i) % segment.count.bindings];
      const bool free = load_acquire(&binding->seq) == 0;
      const u64 process = load(&binding->process);
      if (!free && process == to.process && load(&binding->tid) == to.tid) {
        slot = binding;
        break;
      }
      const bool reusable = free || load(&binding->policy) == kUnbound || is_dead(pid_of(process));
      if (!slot && reusable) slot = binding;
      if (free) break;
    }
    if (!slot) break;
    const u32 seq = load(&slot->seq);
    if ((seq & 1) || !swap_if(&slot->seq, seq, seq + 1)) continue;
    fence_release();
    store(&slot->tid, to.tid);
    store(&slot->process, to.process);
    store(&slot->policy, policy);
    store_release(&slot->seq, seq + 2 ? seq + 2 : 2);
    if (to.tid) __atomic_fetch_or(&segment.header->flags, kHeaderThreads, __ATOMIC_RELAXED);
    add(&segment.header->generation, 1u);
    return true;
  }
  count_fallback(segment, Fallback::TableFull);
  return false;
}

Process* find_process(const Segment& segment, i32 pid, u64 start_time) {
  u64 start = mix(static_cast<u64>(pid));
  for (u32 i = 0; i < kProbeWindow; i++) {
    Process* process = &segment.processes[(start + i) % segment.count.processes];
    if (load_acquire(&process->state) == static_cast<u32>(ProcessState::Free)) return nullptr;
    if (load(&process->pid) == pid && load(&process->start) == start_time) return process;
  }
  return nullptr;
}

Process* register_process(const Segment& segment, i32 pid, u64 start_time, const char* lineage, const char* program, u64 now_ns) {
  u64 start = mix(static_cast<u64>(pid));
  Process* slot = find_process(segment, pid, start_time);
  for (u32 i = 0; !slot && i < kProbeWindow; i++) {
    Process* process = &segment.processes[(start + i) % segment.count.processes];
    u32 state = load_acquire(&process->state);
    bool reusable = state == static_cast<u32>(ProcessState::Free) || state == static_cast<u32>(ProcessState::Gone);
    if (reusable && swap_if(&process->state, state, static_cast<u32>(ProcessState::Starting))) slot = process;
  }
  for (u32 i = 0; !slot && i < kProbeWindow; i++) {  // no room: then those serve that ended without saying so
    Process* process = &segment.processes[(start + i) % segment.count.processes];
    u32 state = load_acquire(&process->state);
    bool settled = state == static_cast<u32>(ProcessState::Attached) || state == static_cast<u32>(ProcessState::Execing);
    if (!settled || !is_dead(load(&process->pid))) continue;
    if (swap_if(&process->state, state, static_cast<u32>(ProcessState::Starting))) slot = process;
  }
  if (!slot) {
    count_fallback(segment, Fallback::TableFull);
    return nullptr;
  }
  if (load(&slot->pid) != pid || load(&slot->start) != start_time) {  // the sums were another's
    store(&slot->folded_flows, u64{0});
    for (u32 d = 0; d < kDirections; d++) {
      store(&slot->folded_called[d], u64{0});
      store(&slot->folded_adjusted[d], i64{0});
    }
  }
  store(&slot->pid, pid);
  store(&slot->start, start_time);
  copy_text(slot->lineage, sizeof(slot->lineage), lineage);
  copy_tail(slot->program, sizeof(slot->program), program);
  store(&slot->since_ns, now_ns);
  store_release(&slot->state, static_cast<u32>(ProcessState::Attached));
  return slot;
}

Histogram* histogram_of(const Segment& segment, i32 policy, Fault fault, Direction direction) {
  const u32 f = static_cast<u32>(fault);
  const Stats* stats = f < kTimedFaults ? stats_of(segment, policy) : nullptr;
  const u32 given = stats ? load(&stats->histograms[f * kDirections + static_cast<u32>(direction)]) : 0;
  return given && given <= segment.count.histograms ? &segment.histograms[given - 1] : nullptr;
}

Histogram* own_histogram(const Segment& segment, i32 policy, Fault fault, Direction direction) {
  if (Histogram* known = histogram_of(segment, policy, fault, direction)) return known;
  const u32 f = static_cast<u32>(fault);
  Stats* stats = f < kTimedFaults ? stats_of(segment, policy) : nullptr;
  if (!stats) return nullptr;
  const u32 most = segment.count.histograms < 0xffff ? segment.count.histograms : 0xffff;
  const u32 taken = add(&segment.header->histograms_used, 1u);
  if (taken < most) {  // where another thread was first, this row stays nobody's
    swap_if(&stats->histograms[f * kDirections + static_cast<u32>(direction)], u16{0}, static_cast<u16>(taken + 1));
  } else {
    add(&segment.header->histograms_used, ~0u);
  }
  return histogram_of(segment, policy, fault, direction);
}

void count_verdict(const Segment& segment, i32 policy, Stage stage, Verdict verdict) {
  if (Stats* stats = stats_of(segment, policy))
    add(&stats->verdicts[static_cast<u32>(stage) * kVerdicts + static_cast<u32>(verdict)], u64{1});
}

void count_applied(const Segment& segment, i32 policy, Fault fault, Direction direction, u64 times) {
  if (Stats* stats = stats_of(segment, policy))
    add(&stats->applied[static_cast<u32>(fault) * kDirections + static_cast<u32>(direction)], times);
}

void record_time(const Segment& segment, i32 policy, Fault fault, Direction direction, u64 delivered_ns, u64 asked_ns) {
  count_applied(segment, policy, fault, direction, 1);
  file_time(segment, policy, fault, direction, delivered_ns, asked_ns);
}

void file_time(const Segment& segment, i32 policy, Fault fault, Direction direction, u64 delivered_ns, u64 asked_ns) {
  Histogram* h = own_histogram(segment, policy, fault, direction);
  if (!h) return;
  add(&h->count, u64{1});
  add(&h->sum_ns, delivered_ns);
  add(&h->asked_sum_ns, asked_ns);
  add(&h->buckets[histogram_bucket(delivered_ns)], 1u);
  for (u64 seen = load(&h->min_ns); (seen == 0 || delivered_ns + 1 < seen) && !swap_if(&h->min_ns, seen, delivered_ns + 1);) seen = load(&h->min_ns);
  for (u64 seen = load(&h->max_ns); delivered_ns > seen && !swap_if(&h->max_ns, seen, delivered_ns);) seen = load(&h->max_ns);
}

namespace {

u64 clock_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<u64>(t.tv_sec) * 1'000'000'000 + static_cast<u64>(t.tv_nsec);
}

// Waits until the ring's reader has moved on from `tail`. False: nobody is to wait for it, or it did not while faults were in
// force and patience lasted. The next writers then drop at once, so that a stuck reader costs a program this wait once.
bool await_reader(const Segment& segment, u64 tail, u64* patience_ns) {
  Header* header = segment.header;
  if (!(load(&header->flags) & kHeaderRecord) || load(&header->journal_stalled) == tail + 1) return false;
  constexpr timespec kNap = {0, 500'000};
  const int kept = errno;
  u64 now = clock_ns();
  const u64 deadline = now + *patience_ns;
  bool moved;
  while (!(moved = load_acquire(&header->journal_tail) != tail) && now < deadline && lease_holds(segment, now)) {
    // On the word that changes when faults end. By syscall(2), because nanosleep(3) would be a cancellation point.
    syscall(SYS_futex, &header->state, FUTEX_WAIT, static_cast<u32>(State::Active), &kNap, nullptr, 0);
    now = clock_ns();
  }
  errno = kept;
  *patience_ns = now < deadline ? deadline - now : 0;
  if (!moved && *patience_ns == 0) store(&header->journal_stalled, tail + 1);
  return moved;
}

}  // namespace

bool push_event(const Segment& segment, const Event& event, u64* patience_ns) {
  Header* header = segment.header;
  u64 own_patience_ns = kRoomPatienceNs, position;
  for (;;) {
    const u64 tail = load_acquire(&header->journal_tail);  // before the head, so that it is never past it
    position = load(&header->journal_head);
    if (position - tail >= segment.count.events) {
      if (await_reader(segment, tail, patience_ns ? patience_ns : &own_patience_ns)) continue;
      add(&header->journal_dropped, u64{1});
      return false;
    }
    if (swap_if(&header->journal_head, position, position + 1)) break;
  }
  Event* slot = &segment.events[position % segment.count.events];
  store_words(slot, event, 1);
  if (event.at_ns == 0) store(&slot->at_ns, clock_ns());
  store_release(&slot->turn, position + 1);
  return true;
}

bool pop_event(const Segment& segment, Event* out, u32* patience) {
  Header* header = segment.header;
  for (;;) {
    u64 position = load(&header->journal_tail);
    if (position == load_acquire(&header->journal_head)) return false;
    Event* slot = &segment.events[position % segment.count.events];
    bool readable = load_acquire(&slot->turn) == position + 1;
    if (!readable && ++*patience <= 100) return false;
    if (readable) copy_words(out, slot);
    *patience = 0;
    store_release(&header->journal_tail, position + 1);
    if (readable) return true;
    add(&header->journal_dropped, u64{1});
  }
}

}  // namespace mishap
