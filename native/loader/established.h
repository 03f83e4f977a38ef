// Connections that were there before an attach. The relay cannot have them; what the kernel can do to them where they are is done
// here, by a copy of each descriptor that is closed at once: reset them, let them hear nothing any more, pace what they send.
#pragma once

#include <string>
#include <vector>

#include "kernel.h"
#include "subject.h"

namespace mishap::loader {

struct Treatment {
  bool reset = false;
  u32 silent = 0;        // bits: 1 uplink, 2 downlink
  u64 silent_after = 0;  // only those that have carried as many bytes
  u64 pace = 0;          // bytes a second on the way out; 0: as it is
  bool any() const { return reset || silent || pace; }
};

class Established {
 public:
  // Of that process, or of all processes of a cgroup.
  Established(const Kernel& kernel, const Subject& subject, const std::string& cgroup) : kernel_(kernel), subject_(subject), cgroup_(cgroup) {}
  // Gives back what was changed; so does a child of ours if we are killed.
  ~Established();
  Established(const Established&) = delete;

  // Finds and treats them; what came of it, as an object of JSON.
  std::string treat(const Treatment& treatment);

 private:
  struct Paced {
    i32 pid;
    u64 cookie, before;
  };
  void treat_one(i32 pid, int fd, const Treatment& treatment);
  void start_keeper();

  const Kernel& kernel_;
  const Subject& subject_;
  const std::string cgroup_;
  std::vector<u64> seen_;
  std::vector<Paced> paced_;
  u64 reset_ = 0, silenced_ = 0;
  std::string problem_;
  i32 keeper_ = -1;
  int keeping_ = -1;
};

}  // namespace mishap::loader
