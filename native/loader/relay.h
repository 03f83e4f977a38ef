// The relay's process, from the loader's side: started with the run's user and one right, raw sockets, for answers that TCP
// itself would not send. It is made while the loader may still do that, and waits: the segment comes later.
#pragma once

#include <string>

#include "contract/relay.h"
#include "kernel.h"

namespace mishap::loader {

class RelayProcess {
 public:
  RelayProcess() = default;
  ~RelayProcess();
  RelayProcess(const RelayProcess&) = delete;

  // 0 or an errno.
  int make(const Kernel& kernel, const std::string& segment, i32 uid, i32 gid);
  // Lets it begin: why it cannot, or empty once connections go to it.
  std::string begin();
  // Readable once it is gone, while nobody knows that yet; else -1.
  int end() const { return lost_ ? -1 : from_; }
  // It is gone before its time: connections go direct from now on, not only once its beat is old.
  void lose();
  bool lost() const { return lost_; }

 private:
  bool lost_ = false;
  RelayControl* control_ = nullptr;
  i32 pid_ = -1;
  int to_ = -1, from_ = -1;
};

}  // namespace mishap::loader
