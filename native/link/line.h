// The way of one byte through a link of 100 ms, out and in:
//
//   PROGRAM  send() ─▶ interceptor: decided, due in 100 ms ──parcel + a copy of the socket──▶ COURIER
//               │                                                                               │ DelayLine, until due
//               ╰◀─ returns at once; Flow.line_bytes says how full the line is                  ▼
//                                                                     real sendmsg() ─▶ kernel ─▶ the network ─▶ peer
//   PROGRAM  recv() ◀─ interceptor: arrival + 100 ms is over ◀─ kernel's receive buffer ◀─ the network ◀─ peer
//               ▲         (until then poll, select and epoll report nothing to read either)
//               ╰── the bytes stay with the kernel; only when they arrived is written down
//
// This file is the delay line: what one flow was given to send and has not sent yet, in the order in which it leaves. It
// says what leaves next and when; whoever drives it sends. It knows neither hooks nor threads nor processes.
//
//   push(parcel) ──▶ heap by (due, when it was sent, arrival) ──▶ head(), once its time has come ──▶ left(bytes)
//
// A stream never reorders what one sender sent: nothing of his leaves before what he sent earlier. Several processes may
// share a stream, each with a connection of its own that is read at its own time; between them the due times decide, which
// grow with every send. Datagrams leave each at its own time: a later one that is due earlier overtakes.
#pragma once

#include <memory>

#include "link/outbox.h"
#include "link/parcel.h"

namespace mishap::link {

// One parcel on the line.
struct Unit {
  Parcel parcel;  // its due time is when it leaves, once the stream's order was kept
  u32 bytes;      // of data
  u32 gone;       // of them, have left
  // Where it stands in the line; turn_ns is 0 once some of it left: what began ends first.
  u64 turn_ns, rank_ns, order;
  const u8* data;
  std::shared_ptr<Outbox> outbox;  // where they are in a block; else they are here
  u8 copied[];
};

// What several lines may hold together.
struct Budget {
  u64 limit_bytes;
  u64 used_bytes = 0;
};

class DelayLine {
 public:
  DelayLine(bool stream, Budget* budget) : stream_(stream), budget_(budget) {}
  ~DelayLine();
  DelayLine(const DelayLine&) = delete;

  // What a parcel with so many bytes takes of the budget.
  static constexpr u64 cost(u64 bytes) { return sizeof(Unit) + bytes; }
  // Puts a parcel from `sender` on the line; its bytes are copied, or in a block of `outbox`. False: the budget is spent, or there is no memory; nothing has happened then.
  bool push(const Parcel& parcel, const u8* data, u32 bytes, u64 sender, const std::shared_ptr<Outbox>& outbox = nullptr);

  bool empty() const { return count_ == 0; }
  u64 bytes() const { return bytes_; }  // in units that have not wholly left
  // What leaves next; nullptr when empty.
  const Unit* head() const { return count_ ? units_[0] : nullptr; }
  // What of a unit's data has not left, its extra copies included; and of all units'.
  static u64 unsent(const Unit& unit);
  u64 unsent_bytes() const;
  u64 next_due_ns() const { return count_ ? units_[0]->parcel.due_ns : 0; }
  // So many bytes of the head left; true when it is done, its extra copies too. Then drop_head() takes it off the line.
  bool left(u32 bytes);
  void drop_head();
  void clear();

 private:
  const bool stream_;
  Budget* const budget_;
  Unit** units_ = nullptr;  // a heap, what leaves next on top
  u32 count_ = 0, capacity_ = 0;
  u64 bytes_ = 0, pushed_ = 0;
  u64 last_sender_ = 0, last_due_ns_ = 0, last_rank_ns_ = 0;
};

}  // namespace mishap::link
