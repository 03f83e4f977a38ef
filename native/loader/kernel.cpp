#include "kernel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>

#include "observe.skel.h"
#include "redirect.skel.h"
#include "silence.skel.h"
#include "tag.skel.h"

namespace mishap::loader {
namespace {

const Hook kHooks[] = {
    {Part::Tag, "mishap_made", "cgroup/sock_create", "ownership", false, {}},
    {Part::Tag, "mishap_closed", "cgroup/sock_release", "ownership", false, {}},
    {Part::Tag, "mishap_named4", "cgroup/getpeername4", "ownership", false, {}},
    {Part::Tag, "mishap_named6", "cgroup/getpeername6", "ownership", false, {}},
    {Part::Tag, "mishap_said", "cgroup/setsockopt", "claims", false, {}},
    {Part::Observe, "mishap_sent", "tp_btf/sock_send_length", "bytes", false, {}},
    {Part::Observe, "mishap_received", "tp_btf/sock_recv_length", "bytes", false, {}},
    {Part::Observe, "mishap_state", "tp_btf/inet_sock_set_state", "states", false, {}},
    {Part::Observe, "mishap_arrived", "tp_btf/tcp_probe", "arrivals", false, {}},
    {Part::Observe, "mishap_resent", "tp_btf/tcp_retransmit_skb", "retransmits", false, {}},
    {Part::Observe, "mishap_reset_received", "tp_btf/tcp_receive_reset", "resets", false, {}},
    {Part::Observe, "mishap_reset_sent", "tp_btf/tcp_send_reset", "resets", false, {}},
    {Part::Redirect, "mishap_connect4", "cgroup/connect4", "redirection", false, {}},
    {Part::Redirect, "mishap_connect6", "cgroup/connect6", "redirection", false, {}},
    {Part::Redirect, "mishap_connecting", "sock_ops", "redirection", false, {}},
    {Part::Redirect, "mishap_peer4", "cgroup/getpeername4 of relayed flows", "redirection", false, {}},
    {Part::Redirect, "mishap_peer6", "cgroup/getpeername6 of relayed flows", "redirection", false, {}},
    {Part::Redirect, "mishap_local4", "cgroup/getsockname4", "redirection", false, {}},
    {Part::Redirect, "mishap_local6", "cgroup/getsockname6", "redirection", false, {}},
    {Part::Silence, "mishap_unsent", "cgroup_skb/egress", "silence", false, {}},
    {Part::Silence, "mishap_unheard", "cgroup_skb/ingress", "silence", false, {}},
};

bool on_cgroup(const Hook& hook) { return strncmp(hook.name, "tp_btf/", 7) != 0; }
bool wanted(const Hook& hook, const Watch& watch) {
  return (watch.arrivals || strcmp(hook.purpose, "arrivals") != 0) && (watch.relay || hook.part != Part::Redirect) && (watch.silence || hook.part != Part::Silence);
}

// The line of what libbpf and the verifier said last that tells a person most: not instructions, source lines and register
// states, which are the verifier's way there, nor its statistics.
std::string said;
bool tells(const char* line) {
  for (const char* start : {"from ", "stack depth", "processed ", "verification time", "-- ", "callee:", "caller:"})
    if (strncmp(line, start, strlen(start)) == 0) return false;
  return line[0] && !isdigit(line[0]) && line[0] != ';' && line[0] != ' ' && !strstr(line, "failed to load") && !strstr(line, "RLIMIT_MEMLOCK");
}
int listen_to(enum libbpf_print_level level, const char* format, va_list arguments) {
  char* text = nullptr;
  if (level != LIBBPF_WARN || vasprintf(&text, format, arguments) < 0) return 0;
  for (char* line = strtok(text, "\n"); line; line = strtok(nullptr, "\n"))
    if (tells(line)) said = line;
  free(text);
  return 0;
}

std::string reason_of(int error) {
  std::string reason = strerror(error);
  if (!said.empty()) reason += " (" + said + ")";
  return reason;
}

// Loads an object with the maps that it shares with another; 0 or a negative errno.
int load_sharing(bpf_object* object, const bpf_object* other) {
  bpf_map* map;
  bpf_object__for_each_map(map, object) {
    const bpf_map* same = bpf_map__is_internal(map) ? nullptr : bpf_object__find_map_by_name(other, bpf_map__name(map));
    if (same) bpf_map__reuse_fd(map, bpf_map__fd(same));
  }
  return bpf_object__load(object);
}

}  // namespace

Kernel::Kernel() : hooks_(std::begin(kHooks), std::end(kHooks)) {
  libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
  libbpf_set_print(listen_to);
}
Kernel::~Kernel() { stop(); }

bpf_object* Kernel::object_of(const Hook& hook) const {
  switch (hook.part) {
    case Part::Tag: return tag_->obj;
    case Part::Observe: return observe_->obj;
    case Part::Redirect: return redirect_->obj;
    default: return silence_->obj;
  }
}

// Opens all objects with the programs that are to be loaded: those that are ok so far, or one alone.
bool Kernel::open(const Watch& watch, const Hook* only) {
  close();
  tag_ = tag_bpf__open();
  observe_ = observe_bpf__open();
  redirect_ = redirect_bpf__open();
  silence_ = silence_bpf__open();
  if (!tag_ || !observe_ || !redirect_ || !silence_) return false;
  tag_->rodata->scope = observe_->rodata->scope = redirect_->rodata->scope = static_cast<u32>(watch.scope);
  tag_->rodata->scope_pid = observe_->rodata->scope_pid = redirect_->rodata->scope_pid = watch.pid;
  tag_->rodata->scope_pid_namespace = observe_->rodata->scope_pid_namespace = redirect_->rodata->scope_pid_namespace = watch.pid_namespace;
  for (Hook& hook : hooks_) {
    bpf_program* program = bpf_object__find_program_by_name(object_of(hook), hook.program);
    bpf_program__set_autoload(program, only ? only == &hook : hook.ok);
  }
  return true;
}

// One set of maps for all.
bool Kernel::load(const Watch& watch) {
  said.clear();
  if (int error = bpf_object__load(tag_->obj)) {
    errno = -error;
    return false;
  }
  const u32 zero = 0;
  if (watch.cgroup >= 0) bpf_map_update_elem(bpf_map__fd(tag_->maps.mishap_cgroup), &zero, &watch.cgroup, BPF_ANY);
  int error = load_sharing(observe_->obj, tag_->obj);
  if (error == 0 && watch.relay) error = load_sharing(redirect_->obj, tag_->obj);
  if (error == 0 && watch.silence) error = bpf_object__load(silence_->obj);
  if (error) {
    errno = -error;
    return false;
  }
  return true;
}

bool Kernel::attach(Hook* hook, const Watch& watch) {
  said.clear();
  bpf_program* program = bpf_object__find_program_by_name(object_of(*hook), hook->program);
  if (on_cgroup(*hook) && watch.cgroup < 0) {
    hook->reason = "there is no cgroup2 to attach it to";
    return false;
  }
  bpf_link* link = on_cgroup(*hook) ? bpf_program__attach_cgroup(program, watch.cgroup) : bpf_program__attach(program);
  if (!link) {
    hook->reason = reason_of(errno);
    return false;
  }
  links_.push_back(link);
  return true;
}

void Kernel::probe(const Watch& watch) {
  for (Hook& hook : hooks_) {
    hook.ok = false;
    if (!wanted(hook, watch)) continue;
    if (!open(watch, &hook)) hook.reason = reason_of(errno);
    else if (!load(watch)) hook.reason = reason_of(errno);
    else hook.ok = attach(&hook, watch);
    stop();
  }
}

bool Kernel::start(const Watch& watch) {
  for (Hook& hook : hooks_) hook.ok = wanted(hook, watch);
  if (!open(watch, nullptr)) return false;
  if (!load(watch)) {
    probe(watch);  // some do not load: the others do without them
    for (Hook& hook : hooks_) hook.ok = hook.ok && wanted(hook, watch);
    if (!open(watch, nullptr) || !load(watch)) return false;
  }
  // Frozen before anybody maps it: from now on only the programs write it, and no mapping of it can be made writable.
  const size_t size = sizeof(KernelSocket) * MISHAP_KERNEL_SOCKETS;
  if (bpf_map_freeze(rows_fd()) != 0) return false;
  void* memory = mmap(nullptr, size, PROT_READ, MAP_SHARED, rows_fd(), 0);
  if (memory == MAP_FAILED) return false;
  rows_ = static_cast<const KernelSocket*>(memory);
  bool any = false;
  for (Hook& hook : hooks_)
    if (hook.ok && (hook.ok = attach(&hook, watch))) any = true;
  return any;
}

void Kernel::stop() {
  for (bpf_link* link : links_) bpf_link__destroy(link);
  links_.clear();
  close();
}

void Kernel::close() {
  if (rows_) munmap(const_cast<KernelSocket*>(rows_), sizeof(KernelSocket) * MISHAP_KERNEL_SOCKETS);
  rows_ = nullptr;
  if (silence_) silence_bpf__destroy(silence_);
  if (redirect_) redirect_bpf__destroy(redirect_);
  if (observe_) observe_bpf__destroy(observe_);
  if (tag_) tag_bpf__destroy(tag_);
  silence_ = nullptr;
  redirect_ = nullptr;
  observe_ = nullptr;
  tag_ = nullptr;
}

int Kernel::rows_fd() const { return bpf_map__fd(tag_->maps.mishap_sockets); }
bool Kernel::redirects() const {
  return std::all_of(hooks_.begin(), hooks_.end(), [](const Hook& hook) { return hook.ok || hook.part != Part::Redirect; });
}
int Kernel::control_fd() const { return bpf_map__fd(redirect_->maps.mishap_relay); }
int Kernel::relayed_fd() const { return bpf_map__fd(redirect_->maps.mishap_relayed); }
int Kernel::connects_fd() const { return bpf_map__fd(redirect_->maps.mishap_connects); }
int Kernel::silent_fd() const {
  const bool works = std::all_of(hooks_.begin(), hooks_.end(), [](const Hook& hook) { return hook.ok || hook.part != Part::Silence; });
  return works ? bpf_map__fd(silence_->maps.mishap_silent) : -1;
}
int Kernel::events_fd() const { return bpf_map__fd(tag_->maps.mishap_events); }

u64 Kernel::lost(u32 what) const {
  u64 many = 0;
  if (tag_) bpf_map_lookup_elem(bpf_map__fd(tag_->maps.mishap_lost), &what, &many);
  return many;
}

}  // namespace mishap::loader
