// One datagram socket of a program, as the relay carries it: for whatever destinations it names, one socket of the relay's
// (one a family) does the talking, so that every peer sees one port, as it would without. Each datagram is one unit; what is
// decided about it is the engine's, and it leaves on a delay line when it is due (talking.cpp).
//
//   PROGRAM ─▶ 127.0.0.1:P, the destination's ─▶ decided ─▶ DelayLine ─▶ onward socket ─▶ destination
//   PROGRAM ◀─ from 127.0.0.1:P               ◀─ DelayLine ◀─ decided ◀─ onward socket ◀─ destination
#pragma once

#include <map>
#include <vector>

#include "connection.h"
#include "pool.h"

namespace mishap::relay {

constexpr u16 kDnsPort = 53;
constexpr u64 kLingersNs = kSecond;  // after its close, within which what a socket sent is taken in

// What all talkers share, beside what all connections do.
struct Talk {
  Shared* shared;
  Pool* pool;
  u64 onward_mark;  // of events of onward sockets: or-ed with id << 1 | family
};

class Talker {
 public:
  Talker(Talk* talk, u64 id, const RelayConnect& from) : id(id), talk_(talk), from_(from) {}
  ~Talker();
  Talker(const Talker&) = delete;

  // A conversation begins: a connect, or that the program sends without one.
  void begin(const RelayConnect& from);
  // What the program sent to a peer's socket, from `source`; `bytes` has room for what a mutation adds.
  void sent(u32 peer, const Endpoint& source, u8* bytes, u64 size, u64 at_ns);
  // Something came to an onward socket.
  void arrived(u32 family, u32 events, u8* buffer);
  // Does what is due; everything is when faults have ended.
  void advance(u64 now);
  u64 next_ns() const;
  // The program closed its socket: what it sent still leaves.
  void close();

  u64 cookie() const { return from_.cookie; }
  u32 row() const { return from_.row; }
  const Endpoint& source() const { return source_; }
  bool queued() const { return up_.line.bytes() || !up_.held.empty() || down_.line.bytes() || !down_.held.empty(); }
  // Whether nothing of it is left, nor to be expected.
  bool over(u64 now) const { return closed_ns_ && now - closed_ns_ > kLingersNs && !up_.line.bytes() && up_.held.empty(); }

  const u64 id;
  u64 turn_ns = kNever;  // where it stands on the driver's agenda

 private:
  struct Side {
    Side(Direction direction, link::Budget* budget) : direction(direction), kind(direction == Direction::Uplink ? OpKind::Send : OpKind::Recv), line(false, budget) {}
    const Direction direction;
    const OpKind kind;
    link::DelayLine line;
    HeldUnits held;
  };

  void open_flow(const Endpoint& peer);
  void keep_policy(const Endpoint& peer);
  int onward(u32 family);
  void carry(Side* side, const Aim& aim, u8* bytes, u64 size, u64 at_ns, bool inside);
  void decide(Side* side, const Aim& aim, engine::Call* call, engine::Step* step, const u8* bytes, u64 size);
  void ask(const Aim& aim, u8* bytes, u64 size, u64 at_ns);
  void pass_answer(const Aim& aim, const u8* bytes, u64 size);
  bool is_inside(const Endpoint& peer, u32 family);
  void overtake(Side* side, u32 passed, bool all);
  void put(Side* side, const Aim& aim, const u8* bytes, u64 size, u64 at_ns, const engine::Decision& d);
  void line_up(Side* side, const link::Parcel& parcel, const u8* bytes, u64 size);
  void leave(Side* side, u64 until_ns);
  bool send_on(Side* side, const Aim& aim, const u8* bytes, u64 size);
  void bounce(const Aim& aim, Unreachable what, u64 due_ns);
  void take_errors(u32 family, u64 at_ns);
  void end_silence(const link::Parcel& parcel) const;
  u64 way_back_ns(u64 at_ns);
  void count_lost(Direction direction, Account reason, u64 bytes) const { talk_->shared->account(policy_, direction, reason, bytes); }

  Talk* const talk_;
  RelayConnect from_;
  Endpoint source_;
  int onward_[2] = {-1, -1};
  Side up_{Direction::Uplink, &talk_->shared->budget}, down_{Direction::Downlink, &talk_->shared->budget};
  Flow* flow_ = nullptr;
  i32 policy_ = -1;
  u32 generation_ = 0;
  engine::Wants wants_ = {};
  char process_path_[40] = {};
  bool opened_ = false;   // its flow, as far as there was room for one
  bool carried_ = false;  // the interceptor is in the program, and sees to what libc looks up for it
  u64 closed_ns_ = 0;
  std::map<Endpoint, bool> inside_;  // who answered: whether he carries his faults himself
};

// The cookie of the datagram socket here that a datagram from `peer` to `local` reaches; 0 none.
u64 datagram_socket(const Endpoint& local, const Endpoint& peer);
// The kernel's row of a socket; MISHAP_KERNEL_SOCKETS: it has none.
u32 row_of_cookie(const KernelSocket* sockets, u64 cookie);

}  // namespace mishap::relay
