// What leaves: every flow that has something queued, with its delay line and the courier's copy of its socket. Whoever
// drives this hands parcels over, watches an epoll set, and calls deliver() when something is due.
#pragma once

#include <memory>
#include <set>
#include <unordered_map>
#include <utility>

#include "link/line.h"
#include "segment/segment.h"

namespace mishap::courier {

constexpr u64 kMillisecond = 1000000, kSecond = 1000 * kMillisecond;
constexpr u64 kNever = ~u64{0};

u64 now_ns();

// A flow with something queued.
struct Outlet {
  const u64 cookie;
  const u32 flow;  // its row
  const int fd;    // the copy
  const bool stream;
  link::DelayLine line;
  u64 turn_ns = kNever;  // where it stands on the agenda; kNever: it does not
  u64 cut_ns = kNever;   // when the program has closed it with bytes unread: then nobody waits for the peer to read
  u64 unblocked_ns = 0;  // when its peer last had room again
  bool blocked = false, watched = false;
};

class Outlets {
 public:
  // `epoll` is where sockets whose peers have no room are watched; the event's data is kBlocked | the socket's cookie.
  Outlets(const Segment& segment, int epoll, u64 queue_bytes) : segment_(segment), epoll_(epoll), budget_{queue_bytes} {}
  static constexpr u64 kBlocked = u64{1} << 63;

  // How many more parcels of any size there is memory for.
  u64 room() const;
  // Takes a sound parcel, when there was room, and with it the descriptor: kept as the flow's copy, or closed; -1 none.
  void take(const link::Parcel& parcel, const u8* data, u32 bytes, u64 sender, const std::shared_ptr<link::Outbox>& outbox, int fd);
  // Sends some of what is due; all of it is when faults have ended. When to call again: 0 at once, or kNever.
  u64 deliver();
  // This socket's peer has room again, or its connection broke.
  void unblock(u64 cookie);
  // Cuts the connections of all that is left.
  void give_up();

  u64 count() const { return outlets_.size(); }
  // Whether all that is left waits for peers who do not read.
  bool stuck() const { return agenda_.empty(); }
  u64 progress_ns() const { return progress_ns_; }

 private:
  void serve(Outlet* outlet, u64 until_ns);
  ssize_t attempt(const Outlet& outlet);
  void block(Outlet* outlet);
  void schedule(Outlet* outlet);
  void settle(Outlet* outlet, u64 left_bytes);
  void file_evidence(const Outlet& outlet, const link::Parcel& parcel) const;
  void fail(const Outlet& outlet, int error) const;
  void account(Flow* flow, u64 left_bytes, u64 head_due_ns) const;
  void count_cut(Flow* flow, u64 bytes) const;
  void cut(Outlet* outlet) const;
  Flow* flow_of(u32 row, u64 cookie) const;

  const Segment& segment_;
  const int epoll_;
  link::Budget budget_;
  std::unordered_map<u64, std::unique_ptr<Outlet>> outlets_;  // by cookie
  std::set<std::pair<u64, Outlet*>> agenda_;                  // those that can send, by when they have something to send
  u64 progress_ns_ = now_ns();
};

}  // namespace mishap::courier
