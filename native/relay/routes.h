// Which source address the kernel chooses for which destination, and where there is no way: what a program asks by connecting a
// datagram socket, and cannot be told by one that is connected to the relay. The kernel's table is asked for its networks, and
// each network by such a connect; the outcome is a short list for the kernel's programs (contract/relay.h).
#pragma once

#include <map>
#include <utility>

#include "contract/relay.h"

namespace mishap::relay {

class Routes {
 public:
  ~Routes();
  // Asks, and watches for changes from then on. `mark`: of the event that says that there are some.
  void open(RelayPool* shared, int epoll, u64 mark);
  // Something changed.
  void changed();
  // Asks again where something changed.
  void keep_up();

 private:
  struct Network {
    u8 address[16];
    u8 length;  // of 128
    auto operator<=>(const Network&) const = default;
  };
  struct Source {
    u8 address[16];  // all zero: there is no way
    bool operator==(const Source&) const = default;
  };

  void list_networks(int family, std::map<Network, Source>* out) const;
  void publish(const std::map<Network, Source>& networks) const;

  RelayPool* shared_ = nullptr;
  int changes_ = -1;
  bool changed_ = true;
};

}  // namespace mishap::relay
