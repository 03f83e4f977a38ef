// class NativeSegment: a mapped segment. Structs go in and out as bytes; src/segment/layout.ts gives them meaning.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <tuple>
#include <vector>

#include "exports.h"
#include "janitor/alive.h"
#include "lease.h"
#include "segment_file.h"

namespace mishap {
namespace {

constexpr u32 kDrainAtMost = 65536;
constexpr u32 kMostDecided = 1u << 22;

// A copy by relaxed word loads: others write at the same moment.
void copy_to(u8* to, const void* from, size_t size) {
  for (size_t at = 0; at < size; at += sizeof(u64)) {
    const u64 word = load(reinterpret_cast<const u64*>(static_cast<const u8*>(from) + at));
    memcpy(to + at, &word, sizeof(word));
  }
}
Napi::Buffer<u8> copy_out(Napi::Env env, const void* from, size_t size) {
  Napi::Buffer<u8> buffer = Napi::Buffer<u8>::New(env, size);
  copy_to(buffer.Data(), from, size);
  return buffer;
}

std::string argument(size_t index) { return "argument " + std::to_string(index + 1); }
std::string policy_named(i64 policy) { return "policy " + std::to_string(policy) + " is outside the segment"; }

u32 whole_number(const Napi::CallbackInfo& info, size_t index) {
  const double value = info[index].IsNumber() ? info[index].As<Napi::Number>().DoubleValue() : -1;
  if (!(value >= 0 && value <= 0xffffffffu) || value != static_cast<double>(static_cast<u32>(value)))
    throw Napi::TypeError::New(info.Env(), argument(index) + " must be a whole number of 32 bits");
  return static_cast<u32>(value);
}

// The whole structs in a Uint8Array, copied, so that they are aligned.
template <class T>
std::vector<T> structs_of(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsTypedArray() || info[index].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
    throw Napi::TypeError::New(info.Env(), argument(index) + " must be a Uint8Array");
  Napi::Uint8Array bytes = info[index].As<Napi::Uint8Array>();
  if (bytes.ByteLength() % sizeof(T))
    throw Napi::TypeError::New(info.Env(), argument(index) + " must hold whole structs");
  std::vector<T> structs(bytes.ByteLength() / sizeof(T));
  if (!structs.empty()) memcpy(static_cast<void*>(structs.data()), bytes.Data(), bytes.ByteLength());
  return structs;
}

class NativeSegment : public Napi::ObjectWrap<NativeSegment> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeSegment",
                       {
                           InstanceAccessor<&NativeSegment::capacities>("capacities"),
                           InstanceAccessor<&NativeSegment::shrunk>("shrunk"),
                           InstanceMethod<&NativeSegment::publish_row_bytes>("publishRow"),
                           InstanceMethod<&NativeSegment::claim>("claimPolicy"),
                           InstanceMethod<&NativeSegment::release>("releasePolicy"),
                           InstanceMethod<&NativeSegment::withdraw>("withdrawPolicy"),
                           InstanceMethod<&NativeSegment::restore>("restorePolicy"),
                           InstanceMethod<&NativeSegment::read_policies>("readPolicies"),
                           InstanceMethod<&NativeSegment::bind_thread>("bindThread"),
                           InstanceMethod<&NativeSegment::unbind_thread>("unbindThread"),
                           InstanceMethod<&NativeSegment::bound_to>("boundPolicy"),
                           InstanceMethod<&NativeSegment::bind_project>("bindProject"),
                           InstanceMethod<&NativeSegment::bind_fd>("bindSocket"),
                           InstanceMethod<&NativeSegment::clear_fd>("clearSocket"),
                           InstanceMethod<&NativeSegment::read_row_bytes>("readRow"),
                           InstanceMethod<&NativeSegment::read_targets>("readTargets"),
                           InstanceMethod<&NativeSegment::read_struct>("readStruct"),
                           InstanceMethod<&NativeSegment::read_header>("readHeader"),
                           InstanceMethod<&NativeSegment::read_processes>("readProcesses"),
                           InstanceMethod<&NativeSegment::read_flows>("readFlows"),
                           InstanceMethod<&NativeSegment::carried>("carried"),
                           InstanceMethod<&NativeSegment::flow_counts>("flowCounts"),
                           InstanceMethod<&NativeSegment::totals>("totals"),
                           InstanceMethod<&NativeSegment::accounts>("accounts"),
                           InstanceMethod<&NativeSegment::drain_journal>("drainJournal"),
                           InstanceMethod<&NativeSegment::decide>("decide"),
                           InstanceMethod<&NativeSegment::activate>("activate"),
                           InstanceMethod<&NativeSegment::pause>("pause"),
                           InstanceMethod<&NativeSegment::resume>("resume"),
                           InstanceMethod<&NativeSegment::retire_now>("retire"),
                           InstanceMethod<&NativeSegment::is_in_force>("inForce"),
                           InstanceMethod<&NativeSegment::check_again>("check"),
                           InstanceMethod<&NativeSegment::close_now>("close"),
                       });
  }

  // new NativeSegment(path) opens; new NativeSegment(path, capacities) creates.
  explicit NativeSegment(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeSegment>(info) {
    if (!info[0].IsString()) throw Napi::TypeError::New(info.Env(), "argument 1 must be a path");
    path_ = info[0].As<Napi::String>().Utf8Value();
    if (info[1].IsObject()) create(info.Env(), info[1].As<Napi::Object>());
    const AttachError error = attach(path_.c_str(), &segment_);
    if (error != AttachError::None) {
      close_file();
      throw Napi::Error::New(info.Env(), path_ + " is not a usable segment: " + describe(error));
    }
    if (fd_ < 0) fd_ = open(path_.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  }

  ~NativeSegment() override {
    lease_.reset();
    detach(&segment_);
    close_file();
  }

 private:
  void create(Napi::Env env, Napi::Object wanted) {
    auto number = [&](const char* name, u32 most = 1u << 18) {
      Napi::Value value = wanted.Get(name);
      const double n = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : 0;
      if (!(n >= 1 && n <= most))
        throw Napi::RangeError::New(env, std::string("capacity ") + name + " must be 1 to " + std::to_string(most));
      return static_cast<u32>(n);
    };
    const CreatedFile made = create_segment(path_.c_str(), {number("policies"), number("bindings"), number("processes"),
                                                            number("owners"), number("flows"), number("events"), number("histograms"),
                                                            number("decided", kMostDecided)});
    if (made.error)
      throw system_error(env, made.error, "open", std::string("could not ") + made.doing + " the segment " + path_);
    fd_ = made.fd;
    shrunk_ = made.shrunk;
    created_ = true;
  }

  // Every method's way to the memory; refuses when it is closed.
  const Segment& open_segment(Napi::Env env) const {
    if (!segment_.base) throw Napi::Error::New(env, "the segment " + path_ + " is closed");
    return segment_;
  }

  Napi::Value capacities(const Napi::CallbackInfo& info) {
    const Capacities& c = open_segment(info.Env()).count;
    Napi::Object result = Napi::Object::New(info.Env());
    result["policies"] = Napi::Number::New(info.Env(), c.policies);
    result["bindings"] = Napi::Number::New(info.Env(), c.bindings);
    result["processes"] = Napi::Number::New(info.Env(), c.processes);
    result["owners"] = Napi::Number::New(info.Env(), c.owners);
    result["flows"] = Napi::Number::New(info.Env(), c.flows);
    result["events"] = Napi::Number::New(info.Env(), c.events);
    result["histograms"] = Napi::Number::New(info.Env(), c.histograms);
    result["decided"] = Napi::Number::New(info.Env(), c.decided);
    return result;
  }

  Napi::Value shrunk(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), shrunk_); }

  void publish_row_bytes(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    const u32 policy = whole_number(info, 0);
    std::vector<Row> rows = structs_of<Row>(info, 1);
    const std::vector<Target> rules = structs_of<Target>(info, 2);
    if (policy >= segment.count.policies)
      throw Napi::RangeError::New(info.Env(),
                                  policy_named(policy) + ", which holds " + std::to_string(segment.count.policies));
    if (rules.size() > kTargetsPerPolicy)
      throw Napi::RangeError::New(info.Env(),
                                  "a policy has at most " + std::to_string(kTargetsPerPolicy) + " target rules");
    if (rows.size() != 1) throw Napi::TypeError::New(info.Env(), "argument 2 must hold one row");
    rows[0].target_count = static_cast<u32>(rules.size());
    rows[0].holder = here();
    publish_row(segment, policy, rows[0], rules.data(), static_cast<u32>(rules.size()));
  }

  Napi::Value read_row_bytes(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    Row row;
    if (!read_row(segment, static_cast<i32>(whole_number(info, 0)), &row)) return info.Env().Undefined();
    return Napi::Buffer<u8>::Copy(info.Env(), reinterpret_cast<u8*>(&row), sizeof(row));
  }

  // The rules of a policy, as many as its row says, from one and the same publication.
  Napi::Value read_targets(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    const i32 policy = static_cast<i32>(whole_number(info, 0));
    Row row;
    if (!read_row(segment, policy, &row)) return info.Env().Undefined();
    std::vector<Target> rules(row.target_count);
    for (u32 i = 0; i < row.target_count; i++)
      if (!read_target(segment, policy, i, row.seq, &rules[i])) return info.Env().Undefined();
    return Napi::Buffer<u8>::Copy(info.Env(), reinterpret_cast<u8*>(rules.data()), rules.size() * sizeof(Target));
  }

  Napi::Value read_struct(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    const u32 region = whole_number(info, 0);
    const u32 index = whole_number(info, 1);
    const Capacities& c = segment.count;
    const struct {
      const void* base;
      u32 count, size;
    } regions[kRegions] = {
        {segment.rows, c.policies, sizeof(Row)},
        {segment.targets, c.policies * kTargetsPerPolicy, sizeof(Target)},
        {segment.bindings, c.bindings, sizeof(Binding)},
        {segment.processes, c.processes, sizeof(Process)},
        {segment.owners, c.owners, sizeof(Owner)},
        {segment.flows, c.flows, sizeof(Flow)},
        {segment.links, c.policies * kDirections, sizeof(Link)},
        {segment.stats, c.policies, sizeof(Stats)},
        {segment.histograms, c.histograms, sizeof(Histogram)},
        {segment.events, c.events, sizeof(Event)},
        {segment.decided, c.decided, sizeof(Decided)},
    };
    if (region >= kRegions || index >= regions[region].count)
      throw Napi::RangeError::New(info.Env(), "row " + std::to_string(index) + " of region " + std::to_string(region) +
                                                  " lies outside the segment");
    const u8* at = static_cast<const u8*>(regions[region].base) + static_cast<size_t>(index) * regions[region].size;
    return copy_out(info.Env(), at, regions[region].size);
  }

  // This process, as bindings and slots know it.
  static u64 here() {
    static const u64 process = process_key(getpid(), start_time(getpid()));
    return process;
  }

  u32 policy_argument(const Napi::CallbackInfo& info, size_t index) {
    const u32 policy = whole_number(info, index);
    if (policy >= open_segment(info.Env()).count.policies) throw Napi::RangeError::New(info.Env(), policy_named(policy));
    return policy;
  }
  // A policy or, by -1, none.
  i32 optional_policy(const Napi::CallbackInfo& info, size_t index) {
    const bool none = info[index].IsNumber() && info[index].As<Napi::Number>().DoubleValue() == -1;
    return none ? -1 : static_cast<i32>(policy_argument(info, index));
  }
  static i32 thread_argument(const Napi::CallbackInfo& info) { return static_cast<i32>(whole_number(info, 0)); }

  // claimPolicy(from): holds a free slot for this process; -1 when all are held.
  Napi::Value claim(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), claim_policy(open_segment(info.Env()), here(), whole_number(info, 0)));
  }
  void release(const Napi::CallbackInfo& info) {
    release_policy(open_segment(info.Env()), policy_argument(info, 0), here());
  }
  void withdraw(const Napi::CallbackInfo& info) {
    set_withdrawn(open_segment(info.Env()), policy_argument(info, 0), true);
  }
  void restore(const Napi::CallbackInfo& info) {
    set_withdrawn(open_segment(info.Env()), policy_argument(info, 0), false);
  }

  // Every policy ever published: its slot, name and holder.
  Napi::Value read_policies(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    const u64 run = process_key(load(&segment.header->owner_pid), load(&segment.header->owner_start));
    Napi::Array policies = Napi::Array::New(info.Env());
    for (u32 i = 0; i < segment.count.policies; i++) {
      Row row;
      if (row_sequence(segment, static_cast<i32>(i)) == 0 || !read_row(segment, static_cast<i32>(i), &row)) continue;
      row.name[sizeof(row.name) - 1] = 0;
      Napi::Object policy = Napi::Object::New(info.Env());
      policy["index"] = Napi::Number::New(info.Env(), i);
      policy["name"] = Napi::String::New(info.Env(), row.name);
      policy["held"] = row.holder == 0 ? "free" : row.holder == run ? "run" : row.holder == here() ? "here" : "elsewhere";
      policy["withdrawn"] = Napi::Boolean::New(info.Env(), row.withdrawn);
      policies[policies.Length()] = policy;
    }
    return policies;
  }

  void bind_or_throw(Napi::Env env, i32 tid, i32 policy) {
    if (!bind(open_segment(env), {here(), tid}, policy))
      throw Napi::Error::New(env, "no room for another binding: a run takes " + std::to_string(segment_.count.bindings));
  }
  // bindThread(tid, policy): tid 0 for this whole process, policy -1 for explicitly none.
  void bind_thread(const Napi::CallbackInfo& info) {
    bind_or_throw(info.Env(), thread_argument(info), optional_policy(info, 1));
  }
  void unbind_thread(const Napi::CallbackInfo& info) { bind_or_throw(info.Env(), thread_argument(info), kUnbound); }
  Napi::Value bound_to(const Napi::CallbackInfo& info) {
    i32 policy;
    if (!find_binding(open_segment(info.Env()), {here(), thread_argument(info)}, &policy)) return info.Env().Undefined();
    return Napi::Number::New(info.Env(), policy);
  }
  void bind_project(const Napi::CallbackInfo& info) {
    const i32 policy = optional_policy(info, 0);
    store(&segment_.header->default_policy, policy);
    add(&segment_.header->generation, 1u);
  }
  static u64 cookie_of(const Napi::CallbackInfo& info, i32 fd) {
    u64 cookie = 0;
    socklen_t length = sizeof(cookie);
    if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) != 0)
      throw system_error(info.Env(), errno, "getsockopt", "descriptor " + std::to_string(fd) + " is not a socket");
    return cookie;
  }
  // bindSocket(fd, policy): the socket keeps its owner, or gets this thread for one.
  void bind_fd(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    const i32 fd = static_cast<i32>(whole_number(info, 0));
    const i32 policy = optional_policy(info, 1);
    const u64 cookie = cookie_of(info, fd);
    Caller owner = {here(), static_cast<i32>(syscall(SYS_gettid))};
    if (const Owner* known = find_owner(segment, cookie)) owner = {load(&known->process), load(&known->tid)};
    bind_socket(segment, cookie, fd, policy, owner, monotonic_ns());
  }
  // clearSocket(fd): from now on it follows whichever thread uses it.
  void clear_fd(const Napi::CallbackInfo& info) {
    const i32 fd = static_cast<i32>(whole_number(info, 0));
    bind_socket(open_segment(info.Env()), cookie_of(info, fd), fd, -1, {0, 0}, monotonic_ns());
  }

  Napi::Value read_header(const Napi::CallbackInfo& info) {
    return copy_out(info.Env(), open_segment(info.Env()).header, sizeof(Header));
  }

  // The rows of a table that are in use, packed.
  template <class Struct, class InUse>
  static Napi::Value read_used(Napi::Env env, const Struct* rows, u32 count, InUse in_use) {
    std::vector<u32> used;
    for (u32 i = 0; i < count; i++)
      if (in_use(rows[i])) used.push_back(i);
    Napi::Buffer<u8> buffer = Napi::Buffer<u8>::New(env, used.size() * sizeof(Struct));
    for (size_t i = 0; i < used.size(); i++) copy_to(buffer.Data() + i * sizeof(Struct), &rows[used[i]], sizeof(Struct));
    return buffer;
  }
  Napi::Value read_processes(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    constexpr u32 kFree = static_cast<u32>(ProcessState::Free);
    return read_used(info.Env(), segment.processes, segment.count.processes,
                     [](const Process& process) { return load_acquire(&process.state) != kFree; });
  }
  Napi::Value read_flows(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    return read_used(info.Env(), segment.flows, segment.count.flows,
                     [](const Flow& flow) { return load_acquire(&flow.cookie) != 0; });
  }

  // What the flows of each policy carried, folded counters and what open flows counted since: by policy, kCarried numbers
  // each: units up, units down, ops up, ops down, and the sends of datagram flows.
  Napi::Value carried(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    constexpr u32 kCarried = 5;
    Napi::Float64Array totals = Napi::Float64Array::New(info.Env(), segment.count.policies * kCarried);
    auto add_to = [&](u32 policy, u32 at, u64 more) { totals[policy * kCarried + at] += static_cast<double>(more); };
    for (u32 policy = 0; policy < segment.count.policies; policy++)
      for (u32 d = 0; d < kDirections; d++) {
        add_to(policy, d, load(&segment.stats[policy].folded_units[d]));
        add_to(policy, kDirections + d, load(&segment.stats[policy].folded_ops[d]));
      }
    for (u32 i = 0; i < segment.count.flows; i++) {
      const Flow& flow = segment.flows[i];
      const i32 policy = load(&flow.policy);
      if (load_acquire(&flow.cookie) == 0 || !is_policy(segment, policy)) continue;
      const FlowDirection* sides[] = {&flow.up, &flow.down};
      for (u32 d = 0; d < kDirections; d++) {
        add_to(static_cast<u32>(policy), d, units_begun(load(&sides[d]->progress)) - load(&sides[d]->folded_units));
        add_to(static_cast<u32>(policy), kDirections + d, load(&sides[d]->ops) - load(&sides[d]->folded_ops));
      }
      if (flow.role == static_cast<u8>(Role::Datagram)) add_to(static_cast<u32>(policy), 4, load(&flow.up.ops));
    }
    return totals;
  }

  // flowCounts(): eight doubles a flow: the low 53 bits of its key, whether it is open, ops, connects, connects that carried
  // nothing, resets, bytes up, bytes down.
  Napi::Value flow_counts(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    std::vector<double> counts;
    for (u32 i = 0; i < segment.count.flows; i++) {
      const Flow& flow = segment.flows[i];
      const Role role = static_cast<Role>(load(&flow.role));
      if (load_acquire(&flow.cookie) == 0 || role == Role::Resolver || load(&flow.policy) < 0) continue;
      const bool open = load(&flow.state) == static_cast<u8>(FlowState::Open), connects = role == Role::Connector;
      const u64 up = load(&flow.up.bytes), down = load(&flow.down.bytes);
      for (double each : {static_cast<double>(load(&flow.key) & ((1ull << 53) - 1)), static_cast<double>(open),
                          static_cast<double>(load(&flow.up.ops) + load(&flow.down.ops)), static_cast<double>(connects),
                          static_cast<double>(connects && !open && up + down == 0),
                          static_cast<double>(load(&flow.state) == static_cast<u8>(FlowState::Reset)), static_cast<double>(up),
                          static_cast<double>(down)})
        counts.push_back(each);
    }
    Napi::Float64Array result = Napi::Float64Array::New(info.Env(), counts.size());
    std::copy(counts.begin(), counts.end(), result.Data());
    return result;
  }

  Napi::Value totals(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    u64 ops = load(&segment.header->folded_ops);
    for (u32 i = 0; i < segment.count.flows; i++) {
      const Flow& flow = segment.flows[i];
      if (load_acquire(&flow.cookie) != 0) ops += load(&flow.up.ops) + load(&flow.down.ops);
    }
    Napi::Object result = Napi::Object::New(info.Env());
    result["flows"] = Napi::Number::New(info.Env(), static_cast<double>(load(&segment.header->flows_opened)));
    result["ops"] = Napi::Number::New(info.Env(), static_cast<double>(ops));
    return result;
  }

  template <class UpToDown>
  static Napi::Array both_ways(Napi::Env env, UpToDown bytes) {
    Napi::Array pair = Napi::Array::New(env, kDirections);
    for (u32 d = 0; d < kDirections; d++) pair[d] = Napi::Number::New(env, static_cast<double>(bytes(d)));
    return pair;
  }
  static Napi::Object account_of(Napi::Env env, const Flow& flow) {
    const FlowDirection* sides[] = {&flow.up, &flow.down};
    Napi::Object account = Napi::Object::New(env);
    account["cookie"] = Napi::BigInt::New(env, uint64_t{load(&flow.cookie)});
    account["pid"] = Napi::Number::New(env, load(&flow.pid));
    account["policy"] = Napi::Number::New(env, load(&flow.policy));
    account["called"] = both_ways(env, [&](u32 d) { return load(&sides[d]->called); });
    account["adjusted"] = both_ways(env, [&](u32 d) { return load(&sides[d]->adjusted); });
    account["held"] = both_ways(env, [&](u32 d) { return load(&sides[d]->held) + (d == 0 ? load(&flow.line_bytes) : 0); });
    return account;
  }
  // What flows account for, those of look-ups aside, and what processes do for flows whose rows were given to others.
  Napi::Value accounts(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    Napi::Env env = info.Env();
    Napi::Array flows = Napi::Array::New(env), processes = Napi::Array::New(env);
    for (u32 i = 0; i < segment.count.flows; i++) {
      const Flow& flow = segment.flows[i];
      if (load_acquire(&flow.cookie) == 0 || load(&flow.role) == static_cast<u8>(Role::Resolver)) continue;
      flows[flows.Length()] = account_of(env, flow);
    }
    for (u32 i = 0; i < segment.count.processes; i++) {
      const Process& process = segment.processes[i];
      if (load(&process.folded_flows) == 0) continue;
      Napi::Object account = Napi::Object::New(env);
      account["pid"] = Napi::Number::New(env, load(&process.pid));
      account["flows"] = Napi::Number::New(env, static_cast<double>(load(&process.folded_flows)));
      account["called"] = both_ways(env, [&](u32 d) { return load(&process.folded_called[d]); });
      account["adjusted"] = both_ways(env, [&](u32 d) { return load(&process.folded_adjusted[d]); });
      processes[processes.Length()] = account;
    }
    Napi::Object result = Napi::Object::New(env);
    result["flows"] = flows;
    result["processes"] = processes;
    return result;
  }

  // The next events in order, packed. Only one reader may drain.
  Napi::Value drain_journal(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    const u32 most = std::min(whole_number(info, 0), kDrainAtMost);
    std::vector<Event> events;
    for (Event event; events.size() < most && pop_event(segment, &event, &patience_);) events.push_back(event);
    return Napi::Buffer<u8>::Copy(info.Env(), reinterpret_cast<u8*>(events.data()), events.size() * sizeof(Event));
  }

  // decide(entries): what is to happen, in any order; as many as the segment was made for, before it is in force.
  void decide(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    std::vector<Decided> entries = structs_of<Decided>(info, 0);
    if (!created_ || lease_) throw Napi::Error::New(info.Env(), "what happens is decided before the segment is in force");
    if (entries.size() > segment.count.decided)
      throw Napi::RangeError::New(info.Env(), "the segment has room for " + std::to_string(segment.count.decided) + " decisions");
    std::stable_sort(entries.begin(), entries.end(), [](const Decided& a, const Decided& b) {
      return std::tie(a.key, a.op, a.unit) < std::tie(b.key, b.op, b.unit);
    });
    Decided nobodys = {};  // behind the last entry, so that order holds
    nobodys.key = nobodys.unit = ~u64{0};
    nobodys.op = 0xff;
    entries.resize(segment.count.decided, nobodys);
    memcpy(const_cast<Decided*>(segment.decided), entries.data(), entries.size() * sizeof(Decided));
  }

  // activate(defaultPolicy, flags, runSeed, scriptPatienceNs, datesArrivals): takes the lock, starts the lease, puts the segment in force.
  void activate(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    if (!created_) throw Napi::Error::New(info.Env(), "only the process that created a segment can put it in force");
    if (lease_) throw Napi::Error::New(info.Env(), "the segment is in force already");
    if (load(&segment.header->state) == static_cast<u32>(State::Retired))
      throw Napi::Error::New(info.Env(), "the segment is retired, which is for good");
    const i32 policy = info[0].As<Napi::Number>().Int32Value();
    const u32 flags = whole_number(info, 1);
    bool exact = false;
    const u64 seed = info[2].IsBigInt() ? info[2].As<Napi::BigInt>().Uint64Value(&exact) : 0;
    if (!exact) throw Napi::TypeError::New(info.Env(), "argument 3 must be a BigInt of 64 bits, not negative");
    if (policy < -1 || policy >= static_cast<i32>(segment.count.policies))
      throw Napi::RangeError::New(info.Env(), policy_named(policy));
    Header* header = segment.header;
    store(&header->default_policy, policy);
    __atomic_fetch_or(&header->flags, flags, __ATOMIC_RELAXED);  // publishing rules may have set others
    store(&header->run_seed, seed);
    const double patience_ns = info[3].IsNumber() ? info[3].As<Napi::Number>().DoubleValue() : 0;
    store(&header->script_patience_ns, static_cast<u64>(patience_ns > 0 && patience_ns < 1e12 ? patience_ns : 0));
    store(&header->owner_pid, static_cast<i32>(getpid()));
    store(&header->owner_start, start_time(getpid()));
    store(&header->epoch_ns, monotonic_ns());
    add(&header->generation, 1u);
    lease_ = std::make_unique<Lease>(segment, fd_, info[4].ToBoolean());
    Ref();  // a forgotten reference must not end the faults: only close() does, or the end of the process
    lease_->resume();
  }

  Napi::Value pause(const Napi::CallbackInfo& info) {
    open_segment(info.Env());
    return Napi::Boolean::New(info.Env(), lease_ && lease_->pause());
  }

  Napi::Value resume(const Napi::CallbackInfo& info) {
    open_segment(info.Env());
    return Napi::Boolean::New(info.Env(), lease_ && lease_->resume());
  }

  void retire_now(const Napi::CallbackInfo& info) { mishap::retire(open_segment(info.Env())); }

  Napi::Value is_in_force(const Napi::CallbackInfo& info) {
    return Napi::Boolean::New(info.Env(), lease_holds(open_segment(info.Env()), monotonic_ns()));
  }

  // undefined, or what has become wrong with the segment since it was opened.
  Napi::Value check_again(const Napi::CallbackInfo& info) {
    const Segment& segment = open_segment(info.Env());
    struct stat here, there;
    Segment scratch;
    AttachError error = AttachError::None;
    if (fd_ >= 0 && !still_backed(segment, fd_)) {
      error = AttachError::Truncated;
    } else if (lstat(path_.c_str(), &there) != 0) {
      error = AttachError::Missing;
    } else if (!S_ISREG(there.st_mode) || there.st_uid != geteuid() || (there.st_mode & 077)) {
      error = AttachError::Foreign;
    } else if (fd_ >= 0 && fstat(fd_, &here) == 0 && (here.st_dev != there.st_dev || here.st_ino != there.st_ino)) {
      return Napi::String::New(info.Env(), "another file lies in its place");
    } else {
      error = mishap::check(segment.base, segment.size, &scratch);
    }
    if (error == AttachError::None) return info.Env().Undefined();
    return Napi::String::New(info.Env(), describe(error));
  }

  // close(unlink): lets the lease end, unmaps, and removes the file when asked to. A second call does nothing.
  void close_now(const Napi::CallbackInfo& info) {
    if (!segment_.base) return;
    if (lease_) {
      mishap::retire(segment_);  // no wait may outlive the run
      lease_.reset();
      Unref();
    }
    detach(&segment_);
    close_file();
    if (info[0].ToBoolean()) unlink(path_.c_str());
  }

  void close_file() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

  std::string path_;
  Segment segment_;
  std::unique_ptr<Lease> lease_;
  int fd_ = -1;
  u32 patience_ = 0;
  bool shrunk_ = false;
  bool created_ = false;
};

}  // namespace

Napi::Function export_segment_class(Napi::Env env) { return NativeSegment::define(env); }

Napi::Value is_abandoned(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) throw Napi::TypeError::New(info.Env(), "argument 1 must be a path");
  return Napi::Boolean::New(info.Env(), abandoned(info[0].As<Napi::String>().Utf8Value().c_str()));
}

}  // namespace mishap
