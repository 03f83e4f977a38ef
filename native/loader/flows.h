// What the kernel saw, as the loader tells it: open sockets from their rows, closed ones from the ring buffer, delays added
// up. One line of JSON a flow.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <tuple>

#include "kernel.h"

struct ring_buffer;

namespace mishap::loader {

class Flows {
 public:
  explicit Flows(const Kernel& kernel);
  ~Flows();
  Flows(const Flows&) = delete;

  // Becomes readable when there is something to take in.
  int events() const;
  void take_in();
  // Every flow closed since the last time and every open one, then the sums; each line ended.
  std::string tell(bool relay_lost);

 private:
  static int on_event(void* self, void* data, size_t size);
  void keep(const KernelSocket& socket);
  std::vector<KernelSocket> open_rows() const;

  struct Sum {
    u64 flows = 0, up = 0, down = 0;
  };
  const Kernel& kernel_;
  ring_buffer* ring_ = nullptr;
  std::deque<KernelSocket> closed_;
  u64 closed_count_ = 0;
  std::map<std::tuple<i32, std::string, bool, bool>, Sum> older_;    // process, program, claimed, relayed
  std::map<std::pair<i32, u32>, std::map<u32, u64>> delays_;         // policy and direction: buckets
};

// A string of JSON, quotes included.
std::string quoted(const std::string& text);

}  // namespace mishap::loader
