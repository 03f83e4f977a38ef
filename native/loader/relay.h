// The relay's process, from the loader's side: started with the run's user and one right, raw sockets, for answers that TCP
// itself would not send. It is made while the loader may still do that, and waits: the segment comes later. Attached to a
// process, it works in that one's network and becomes that one's user once it has the segment, which is the run's user's.
#pragma once

#include <string>

#include "contract/relay.h"
#include "kernel.h"
#include "relay/raw.h"
#include "subject.h"

namespace mishap::loader {

class RelayProcess {
 public:
  RelayProcess() = default;
  ~RelayProcess();
  RelayProcess(const RelayProcess&) = delete;

  // 0 or an errno.
  int make(const Kernel& kernel, const std::string& segment, i32 uid, i32 gid, const Subject& subject);
  // There is to be none; begin() says why.
  void go_without(const std::string& reason) { missing_ = reason; }
  // Lets it begin: why it cannot, or empty once connections go to it.
  std::string begin();
  // It takes nothing on any more, and ends once what programs left behind has gone its way.
  void finish();
  bool finishing() const { return state_ == State::Finishing; }
  // Readable at its end; -1: there is none, or no more.
  int end() const { return state_ == State::There || finishing() ? from_ : -1; }
  // Whether it was not heard of for so long that nobody is handed to it any more. To be asked again and again: where all
  // stood still, the machine say, it gets time to beat once more.
  bool hangs();
  // It ended or hangs. Before its time: connections go direct from now on, not only once its beat is old, those that it has
  // end in a reset, and the connects that wait for it are refused.
  void ended(bool in_time);
  bool lost() const { return lost_; }

 private:
  void refuse_connects() const;
  bool gone_within(int patience_ms) const;

  enum class State { None, There, Finishing, Gone };
  State state_ = State::None;
  bool lost_ = false;
  std::string missing_ = "there is none";
  u64 suspected_ns_ = 0;  // since when it is; 0: it is not
  RelayControl* control_ = nullptr;
  const RelayRow* relayed_ = nullptr;  // MISHAP_KERNEL_SOCKETS of them
  const KernelSocket* sockets_ = nullptr;
  relay::RawSockets raw_;
  i32 pid_ = -1, handle_ = -1;
  int to_ = -1, from_ = -1;
};

}  // namespace mishap::loader
