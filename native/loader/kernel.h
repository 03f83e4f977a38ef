// The kernel's programs (bpf/), loaded and attached hook by hook: what a kernel or a lack of rights does not allow is told
// with its reason, and the rest works without it.
#pragma once

#include <string>
#include <vector>

#include "contract/kernel.h"

struct bpf_object;
struct bpf_link;
struct bpf_program;
struct tag_bpf;
struct observe_bpf;
struct redirect_bpf;
struct accept_bpf;
struct silence_bpf;
struct datagram_bpf;

namespace mishap::loader {

enum class Part : u32 { Tag, Observe, Redirect, Datagram, Accept, Silence };  // bpf/*.bpf.c

// One hook: a program and where it is attached.
struct Hook {
  Part part;
  const char* program;  // its name there
  const char* name;     // the kernel's for the place
  const char* purpose;  // ownership, claims, bytes, states, arrivals, retransmits, resets, redirection, inbound or silence
  bool ok = false;
  std::string reason;   // the kernel's, where it is not
};

enum class Scope : u32 { Cgroup, Process, All };  // as in bpf/common.h

struct Watch {
  Scope scope = Scope::Cgroup;
  i32 pid = 0;        // of Scope::Process, as its own pid namespace numbers it
  u32 pid_namespace = 0;
  int cgroup = -1;    // where the cgroup hooks go; -1: nowhere
  bool arrivals = false;
  bool relay = false;
  bool silence = false;  // of connections that were there before
};

class Kernel {
 public:
  Kernel();
  ~Kernel();
  Kernel(const Kernel&) = delete;

  // Loads and attaches what can be, and freezes the rows. False: nothing can; the hooks say why.
  bool start(const Watch& watch);
  // Detaches everything.
  void stop();
  // Tries each hook by itself.
  void probe(const Watch& watch);

  const std::vector<Hook>& hooks() const { return hooks_; }
  int rows_fd() const;
  int events_fd() const;
  const KernelSocket* rows() const { return rows_; }
  // Whether all is in place that hands connections to a relay; of contract/relay.h, what it shares with it.
  bool redirects() const;
  int control_fd() const;
  int relayed_fd() const;
  int connects_fd() const;
  int pool_fd() const;
  // The same of connections that programs accept: where not all of that is in place, those go direct.
  bool takes_inbound() const;
  int sources_fd() const;
  int listening_fd() const;
  int inbound_fd() const;
  // Has the listeners of running processes be the run's from now on, as far as they are still there. Before rights are dropped.
  void adopt_listeners(const std::vector<i32>& processes);
  // Looks anew at whoever was not watched: to be called every moment, and when somebody may be now.
  void forget_outsiders();
  int silent_fd() const;  // bpf/silence.bpf.c; -1: nothing can be silenced
  u64 lost(u32 what) const;  // bpf/common.h, LOST_*

 private:
  bool open(const Watch& watch, const Hook* only);
  bool load(const Watch& watch);
  bool attach(Hook* hook, const Watch& watch);
  bpf_link* link(const Hook& hook, bpf_program* program, const Watch& watch);
  bpf_object* object_of(const Hook& hook) const;
  bool has(Part part) const;
  void close();

  tag_bpf* tag_ = nullptr;
  observe_bpf* observe_ = nullptr;
  redirect_bpf* redirect_ = nullptr;
  datagram_bpf* datagram_ = nullptr;
  accept_bpf* accept_ = nullptr;
  silence_bpf* silence_ = nullptr;
  std::vector<bpf_link*> links_;
  std::vector<Hook> hooks_;
  const KernelSocket* rows_ = nullptr;
};

}  // namespace mishap::loader
