// The way of one byte through the relay, out and in, under 100 ms each way:
//
//   PROGRAM  connect(10.0.0.1:80) ─▶ kernel: its SYN goes to 127.0.0.1:P, where it is dropped (contract/relay.h)
//                                        │ RelayConnect
//                                        ▼
//   RELAY    decided, connected onward ─▶ then the program's connect is completed: both ends open at once
//
//   PROGRAM  send() ─▶ loopback ─▶ RELAY recv(): decided, due in 100 ms ─▶ DelayLine, until due ─▶ send() ─▶ 10.0.0.1:80
//   PROGRAM  recv() ◀─ loopback ◀─ RELAY send() ◀─ DelayLine, until due ◀─ decided, arrival + 100 ms ◀─ recv() ◀─ 10.0.0.1:80
//
// What a program accepts comes the other way: a client's connection that the kernel handed over, whose other half the relay
// makes to the program's listener. From then on both are alike.
//
// This file is one connection: what the program's connect comes to (connects.cpp), or how a client's meets the program
// (entering.cpp), what is decided about the bytes of both ways (carry.cpp), and how they leave (leaving.cpp). It never waits:
// whoever drives it says when a socket is ready and when something is due.
#pragma once

#include <string>
#include <vector>

#include "contract/kernel.h"
#include "contract/relay.h"
#include "engine/engine.h"
#include "flows.h"
#include "held.h"
#include "inbound.h"
#include "link/line.h"
#include "names.h"
#include "raw.h"
#include "spares.h"

namespace mishap::relay {

constexpr u64 kMillisecond = 1000000, kSecond = 1000 * kMillisecond;
constexpr u64 kNever = ~u64{0};
constexpr u64 kSendingNs = 10000;  // what a send takes until its bytes are out: it begins that much before they are due
constexpr u64 kReadBytes = 65536;  // of one read, which is one op
constexpr u64 kLineBytes = 16 << 20;  // what a line holds before its source is read no further, or, of datagrams, loses them

u64 now_ns();
// Files what the delay of a parcel came to, having left then.
void file_delay(const Segment& segment, Direction direction, const link::Parcel& parcel, u64 left_ns);

// What all connections share.
struct Shared {
  Segment segment;
  RelayRow* rows = nullptr;               // MISHAP_KERNEL_SOCKETS of them
  const KernelSocket* sockets = nullptr;  // as many
  Threads threads;
  Sources sources;
  RawSockets raw;
  Names names;
  Spares spares;
  link::Budget budget = {u64{512} << 20};
  u16 port = 0;            // of the listeners
  int epoll = -1;
  bool in_force = true;    // as the loop last saw it
  bool counted = false;    // the kernel watches: bytes are accounted for

  // Files bytes that became more or fewer. Of a flow that is relayed the program's kernel sees all that was called, and no more
  // (contract/flow.h), so this is its policy's account alone.
  void account(i32 policy, Direction direction, Account reason, u64 bytes) const;
};

enum class Phase : u8 {
  Leaving,     // the SYN is on its way, or fails when that is over
  Connecting,  // the onward attempt is under way
  Answering,   // what came of it is on its way back
  Telling,     // that there is no way, until the program's kernel has heard it
  Completing,  // the program's connect is being completed
  Entering,    // a client's connection: its other half is being made to the program
  Carrying,
  Swallowing,  // half-open: what either end sends is gone
  Silent,      // until it ends in a reset
  Over,
};

// One of the two sockets: the program's side, or the onward one.
struct End {
  int fd = -1;
  bool readable = false, writable = false;
  bool closing = false;  // an end or an error lies behind what can be read
  bool orderly = false;  // closing it resets it no more
  u64 readable_ns = 0;   // when it became so; 0: it was read since
};

// One direction.
struct Way {
  Way(Direction direction, End* from, End* to, link::Budget* budget)
      : direction(direction), kind(direction == Direction::Uplink ? OpKind::Send : OpKind::Recv), from(from), to(to), line(true, budget) {}
  const Direction direction;
  const OpKind kind;
  End *const from, *const to;
  link::DelayLine line;  // what is due and does not fit into the socket stays on it too
  HeldUnits held;
  int pipe[2] = {-1, -1};  // for bytes that nothing can touch; made when there are many
  u64 piped = 0;
  u64 room_ns = 0;        // when `to` last had room again
  bool bulk = false;      // the last read found all it asked for
  bool finished = false;  // nothing is read any more
  bool passed = false;    // its end was passed on
};

class Connection {
 public:
  enum Side : u8 { Program, Onward };

  Connection(Shared* shared, u64 id, const RelayConnect& from);
  ~Connection();
  Connection(const Connection&) = delete;

  // Opens its flow, decides about the connect and begins it. `program`: of one that connected early its end, else -1.
  void begin(int program);
  // Or takes a client's connection to the program.
  void enter(int client, const Journey& journey);
  // What epoll says of one of its sockets. The event's data is id << 1 | side.
  void happened(Side side, u32 events);
  // Takes in some of what either end has; true: there is more.
  bool read(u8* buffer);
  // Does what is due; everything is when faults have ended.
  void advance(u64 now);
  // The relay ends: a connect that has no answer yet is refused, which it would be anyway once its SYN is sent again.
  void give_up();
  // When to advance again; kNever: not before something happens.
  u64 next_ns() const;

  // Ends an attempt whose program waits for it no more: no packet says so.
  void notice_leaving();

  // The program's socket has begun another connection: the flow is that one's, and what is left of this one passes.
  void leave_flow() {
    flow_ = nullptr;
    policy_ = -1;
  }

  bool over() const { return phase_ == Phase::Over; }
  // Whether a read would find something and may happen.
  bool hungry() const { return may_read(up_) || may_read(down_); }
  bool queued() const { return !up_.line.empty() || !down_.line.empty() || up_.piped || down_.piped; }
  // Whether a connect fails just now: the program, which knows already, may have ended on it.
  bool fails_by(u64 at_ns) const { return phase_ == Phase::Leaving && error_ && due_ns_ <= at_ns; }
  // Whether what the program sent before its end is still to be read. Its end may lie behind more than there is room for.
  bool drains() const { return phase_ == Phase::Carrying && !up_.finished && (program_.closing || program_left()); }
  // What has not reached the peer yet, as far as it can be seen from here.
  u64 unsent() const;

  const u64 id;
  u64 cookie() const { return from_.cookie; }
  u64 turn_ns = kNever;  // where it stands on the driver's agenda
  bool in_line = false;  // to be read

 private:
  // connects.cpp
  void attempt();
  const KernelSocket* program_socket() const;
  bool program_left() const { return from_.row < MISHAP_KERNEL_SOCKETS && !program_socket(); }
  bool bind_as_program(int family) const;
  void answered(int error);
  void come_too_late();
  void complete();
  void fail(int error);
  void tell_unreachable(u64 now);
  void end_leaving(u64 now);
  void leave_unanswered(u64 now);
  void allow(u64 patience_ns) const;
  RelayRow* row() const;
  void publish_local() const;

  // entering.cpp
  void entered(int error);
  void meet(u64 now);

  // carry.cpp
  bool may_read(const Way& way) const;
  bool take_in(Way* way, u8* buffer);
  ssize_t splice_in(Way* way);
  void carry(Way* way, u8* bytes, u64 size, u64 at_ns);
  bool decide(Way* way, engine::Call* call, engine::Step* step, const u8* bytes);
  void overtake(Way* way, u32 passed, bool all);
  void fall_silent(Direction direction, const engine::Decision& d);
  void keep_policy();
  void learn_sni(const u8* bytes, u64 size);
  u64 foretell_ns(const Way& way, u64 at_ns) const;
  void count_lost(const Way& way, Account reason, u64 bytes) const { shared_->account(policy_, way.direction, reason, bytes); }

  // leaving.cpp
  void put(Way* way, const u8* bytes, u64 size, u64 at_ns, const engine::Decision& d);
  void put_end(Way* way, link::ParcelKind kind, u64 at_ns, u64 due_ns);
  void line_up(Way* way, const link::Parcel& parcel, const u8* bytes, u64 size);
  void leave(Way* way, u64 until_ns);
  void flush_pipe(Way* way);
  ssize_t send_to(Way* way, const u8* bytes, u64 size);
  void file_evidence(const Way& way, const link::Parcel& parcel) const;
  void broke(End* end, u64 at_ns);
  void pass_end(Way* way);
  void cut(Way* way) const;
  void reset() { close_all(false); }
  void close_all(bool orderly);

  bool watch(const End& end, Side side) const;
  engine::Call evidence(Direction direction) const;

  Shared* const shared_;
  RelayConnect from_;           // of what a program accepts: who, and its client as the peer
  End program_, onward_;
  Way up_, down_;
  Phase phase_ = Phase::Leaving;
  u16 source_port_ = 0;         // where it connects from, when the kernel has to know; 0 anywhere
  Flow* flow_ = nullptr;
  i32 policy_ = -1;
  u32 generation_ = 0;
  engine::Wants wants_ = {};
  bool knows_sni_ = false;  // it was looked for
  bool wants_sni_ = false;  // a name in a TLS client's first bytes may choose another policy
  std::vector<u8> hello_;   // those bytes so far
  std::string sni_;

  // of the connect
  engine::Decision way_;        // what was decided about it
  u64 since_ns_ = 0;            // when it began
  u64 attempt_ns_ = 0, answered_ns_ = 0;
  u64 told_ns_ = 0;             // when it was first told that there is no way
  u64 due_ns_ = kNever;         // when the phase ends by itself

  // and of a silence, which is a connect's or a conversation's; when it began is since_ns_
  u64 silence_ns_ = 0;          // asked for
  Direction silent_direction_ = Direction::Uplink;
  Fault silent_fault_ = Fault::Latency;
  int error_ = 0;               // that it ends with; 0 none
};

}  // namespace mishap::relay
