#include "kernel.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <initializer_list>

#include "accept.skel.h"
#include "datagram.skel.h"
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
    {Part::Observe, "mishap_sent4", "fexit/inet_sendmsg", "bytes", false, {}},
    {Part::Observe, "mishap_sent6", "fexit/inet6_sendmsg", "bytes", false, {}},
    {Part::Observe, "mishap_sent_page", "fexit/inet_sendpage", "bytes", false, {}},
    {Part::Observe, "mishap_received4", "fexit/inet_recvmsg", "bytes", false, {}},
    {Part::Observe, "mishap_received6", "fexit/inet6_recvmsg", "bytes", false, {}},
    {Part::Observe, "mishap_state", "tp_btf/inet_sock_set_state", "states", false, {}},
    {Part::Observe, "mishap_unaccepted", "tp_btf/tcp_destroy_sock", "states", false, {}},
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
    {Part::Datagram, "mishap_peered4", "cgroup/connect4 of datagrams", "redirection", false, {}},
    {Part::Datagram, "mishap_peered6", "cgroup/connect6 of datagrams", "redirection", false, {}},
    {Part::Datagram, "mishap_send4", "cgroup/sendmsg4", "redirection", false, {}},
    {Part::Datagram, "mishap_send6", "cgroup/sendmsg6", "redirection", false, {}},
    {Part::Datagram, "mishap_received4", "cgroup/recvmsg4", "redirection", false, {}},
    {Part::Datagram, "mishap_received6", "cgroup/recvmsg6", "redirection", false, {}},
    {Part::Datagram, "mishap_bound4", "cgroup/bind4", "redirection", false, {}},
    {Part::Datagram, "mishap_bound6", "cgroup/bind6", "redirection", false, {}},
    // Behind observe's hook at the same place, which says whose row a socket has.
    {Part::Accept, "mishap_listens", "tp_btf/inet_sock_set_state of listeners", "inbound", false, {}},
    {Part::Accept, "mishap_listened", "iter/tcp", "inbound", false, {}},
    {Part::Accept, "mishap_adopted", "iter/task_file", "inbound", false, {}},
    {Part::Accept, "mishap_makes", "sock_ops of claimed flows", "inbound", false, {}},
    {Part::Accept, "mishap_lookup", "sk_lookup", "inbound", false, {}},
    {Part::Silence, "mishap_unsent", "cgroup_skb/egress", "silence", false, {}},
    {Part::Silence, "mishap_unheard", "cgroup_skb/ingress", "silence", false, {}},
};

bool starts(const char* text, const char* with) { return strncmp(text, with, strlen(with)) == 0; }
bool on_cgroup(const Hook& hook) { return starts(hook.name, "cgroup") || starts(hook.name, "sock_ops"); }

// Whether bytes are told at the ends of functions, because there are no tracepoints of lengths. They came with Linux 6.3, or
// earlier where a distribution took them over: then the kernel's types say so, which take a while to read.
bool lacks_lengths() {
  utsname kernel;
  int major = 0, minor = 0;
  if (uname(&kernel) == 0 && sscanf(kernel.release, "%d.%d", &major, &minor) == 2 && (major > 6 || (major == 6 && minor >= 3))) return false;
  btf* types = btf__load_vmlinux_btf();
  if (!types) return false;  // nothing is told then, by whichever; said of the tracepoints
  const bool lacks = btf__find_by_name_kind(types, "btf_trace_sock_send_length", BTF_KIND_TYPEDEF) < 0;
  btf__free(types);
  return lacks;
}

bool wanted(const Hook& hook, const Watch& watch) {
  static const bool by_functions = lacks_lengths();
  if (strcmp(hook.purpose, "bytes") == 0 && by_functions != starts(hook.name, "fexit/")) return false;
  const bool parted = hook.part == Part::Silence ? watch.silence : watch.relay || hook.part < Part::Redirect;
  return parted && (watch.arrivals || strcmp(hook.purpose, "arrivals") != 0);
}

// The network namespace that we, and so the relay, are in.
u64 own_netns_cookie() {
  u64 cookie = 0;
  socklen_t length = sizeof(cookie);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) != 0) cookie = 0;
  if (fd >= 0) close(fd);
  return cookie;
}

// Lets an iterator walk to its end: it is the way that counts. 0 or an errno.
int walk(const bpf_link* iterator) {
  const int fd = bpf_iter_create(bpf_link__fd(iterator));
  if (fd < 0) return errno;
  char nothing[256];
  ssize_t n;
  do n = read(fd, nothing, sizeof(nothing));
  while (n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN)));
  const int error = n < 0 ? errno : 0;
  close(fd);
  return error;
}

void walk_all(const bpf_program* program, const bpf_iter_attach_opts* options) {
  bpf_link* iterator = bpf_program__attach_iter(program, options);
  if (!iterator) return;
  walk(iterator);
  bpf_link__destroy(iterator);
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

// Loads an object with the maps that it shares with others; 0 or a negative errno.
int load_sharing(bpf_object* object, std::initializer_list<const bpf_object*> others) {
  bpf_map* map;
  bpf_object__for_each_map(map, object) {
    for (const bpf_object* other : others) {
      const bpf_map* same = bpf_map__is_internal(map) ? nullptr : bpf_object__find_map_by_name(other, bpf_map__name(map));
      if (same) bpf_map__reuse_fd(map, bpf_map__fd(same));
      if (same) break;
    }
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
    case Part::Datagram: return datagram_->obj;
    case Part::Accept: return accept_->obj;
    default: return silence_->obj;
  }
}

// Opens all objects with the programs that are to be loaded: those that are ok so far, or one alone.
bool Kernel::open(const Watch& watch, const Hook* only) {
  close();
  tag_ = tag_bpf__open();
  observe_ = observe_bpf__open();
  redirect_ = redirect_bpf__open();
  datagram_ = datagram_bpf__open();
  accept_ = accept_bpf__open();
  silence_ = silence_bpf__open();
  if (!tag_ || !observe_ || !redirect_ || !datagram_ || !accept_ || !silence_) return false;
  tag_->rodata->scope = observe_->rodata->scope = redirect_->rodata->scope = accept_->rodata->scope = static_cast<u32>(watch.scope);
  tag_->rodata->scope_pid = observe_->rodata->scope_pid = redirect_->rodata->scope_pid = accept_->rodata->scope_pid = watch.pid;
  tag_->rodata->scope_pid_namespace = observe_->rodata->scope_pid_namespace = redirect_->rodata->scope_pid_namespace = accept_->rodata->scope_pid_namespace = watch.pid_namespace;
  accept_->rodata->netns = own_netns_cookie();
  for (Hook& hook : hooks_) {
    bpf_program* program = bpf_object__find_program_by_name(object_of(hook), hook.program);
    bpf_program__set_autoload(program, only ? only == &hook : hook.ok);
  }
  return true;
}

void Kernel::forget_outsiders() {
  if (observe_ && observe_->bss) memset(observe_->bss->outsiders, 0, sizeof(observe_->bss->outsiders));
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
  int error = load_sharing(observe_->obj, {tag_->obj});
  if (error == 0 && watch.relay) error = load_sharing(redirect_->obj, {tag_->obj});
  if (error == 0 && watch.relay) error = load_sharing(datagram_->obj, {tag_->obj, redirect_->obj});
  if (error == 0 && watch.relay) error = load_sharing(accept_->obj, {tag_->obj, redirect_->obj});
  if (error == 0 && watch.silence) error = bpf_object__load(silence_->obj);
  if (error) {
    errno = -error;
    return false;
  }
  return true;
}

bpf_link* Kernel::link(const Hook& hook, bpf_program* program, const Watch& watch) {
  if (on_cgroup(hook)) return bpf_program__attach_cgroup(program, watch.cgroup);
  if (!starts(hook.name, "sk_lookup")) return bpf_program__attach(program);
  const int netns = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  if (netns < 0) return nullptr;
  bpf_link* link = bpf_program__attach_netns(program, netns);
  const int error = errno;
  ::close(netns);
  errno = error;
  return link;
}

bool Kernel::attach(Hook* hook, const Watch& watch) {
  said.clear();
  bpf_program* program = bpf_object__find_program_by_name(object_of(*hook), hook->program);
  if (on_cgroup(*hook) && watch.cgroup < 0) {
    hook->reason = "there is no cgroup2 to attach it to";
    return false;
  }
  bpf_link* link = this->link(*hook, program, watch);
  if (!link) {
    hook->reason = reason_of(errno);
    return false;
  }
  links_.push_back(link);
  if (hook->part != Part::Accept || !starts(hook->name, "iter/tcp")) return true;
  if (const int error = walk(link)) hook->reason = reason_of(error);
  return hook->reason.empty();
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
  if (accept_) accept_bpf__destroy(accept_);
  if (datagram_) datagram_bpf__destroy(datagram_);
  if (redirect_) redirect_bpf__destroy(redirect_);
  if (observe_) observe_bpf__destroy(observe_);
  if (tag_) tag_bpf__destroy(tag_);
  silence_ = nullptr;
  accept_ = nullptr;
  datagram_ = nullptr;
  redirect_ = nullptr;
  observe_ = nullptr;
  tag_ = nullptr;
}

int Kernel::rows_fd() const { return bpf_map__fd(tag_->maps.mishap_sockets); }
bool Kernel::has(Part part) const {
  return std::all_of(hooks_.begin(), hooks_.end(), [part](const Hook& hook) { return hook.ok || hook.part != part; });
}
bool Kernel::redirects() const { return has(Part::Redirect) && has(Part::Datagram); }
bool Kernel::takes_inbound() const { return has(Part::Accept); }
void Kernel::adopt_listeners(const std::vector<i32>& processes) {
  if (!takes_inbound()) return;
  for (const i32 pid : processes) {
    bpf_iter_link_info of = {};
    of.task.pid = static_cast<u32>(pid);
    LIBBPF_OPTS(bpf_iter_attach_opts, options, .link_info = &of, .link_info_len = sizeof(of));
    walk_all(accept_->progs.mishap_adopted, &options);
  }
  walk_all(accept_->progs.mishap_listened, nullptr);
}
int Kernel::sources_fd() const { return bpf_map__fd(accept_->maps.mishap_sources); }
int Kernel::listening_fd() const { return bpf_map__fd(accept_->maps.mishap_listening); }
int Kernel::inbound_fd() const { return bpf_map__fd(accept_->maps.mishap_inbound); }
int Kernel::control_fd() const { return bpf_map__fd(redirect_->maps.mishap_relay); }
int Kernel::relayed_fd() const { return bpf_map__fd(redirect_->maps.mishap_relayed); }
int Kernel::pool_fd() const { return bpf_map__fd(redirect_->maps.mishap_pool); }
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
