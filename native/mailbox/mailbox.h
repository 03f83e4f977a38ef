// The mailbox, opened and walked: programs ask (the interceptor), workers answer (the addon, in a script's host).
//
//   ask()    claims a place in the flow's lane, writes the question, rings, and sleeps on the place until it is answered or
//            the time is up; then the place is the worker's to free
//   next()   takes a lane's next question, if anybody still waits for it; answer() writes there, wakes, frees the place
//
// A lane is a ring of many writers and one reader (Vyukov's bounded queue). Neither side waits for the other's death: a place
// claimed by a program that died is skipped, a question that a dead worker had taken is asked of the next one if there is time,
// a worker that has been at one question for longer than anybody waits is not asked until it is done, nor is one that was not seen
// for a tenth of a second.
//
// Nothing in the memory is trusted: sizes are checked once, indices on every access, and what is read is a row of faults.
// Allocation-free, lock-free and async-signal-safe, except create(), which only the owner of a run calls.
#pragma once

#include "contract/layout.h"
#include "segment/segment.h"

namespace mishap::mailbox {

struct Mailbox {
  u8* base = nullptr;
  u64 size = 0;
  MailboxHeader* header = nullptr;
  MailboxLane* lanes = nullptr;
  MailboxSlot* slots = nullptr;
  Row* answers = nullptr;
  u32 lane_count = 0;
};

u64 size_of(u32 lanes);
// Writes a fresh mailbox over zeroed memory of size_of(lanes) bytes.
void format(u8* base, u32 lanes);
// Checks memory that claims to be a mailbox; reads nothing outside of it.
AttachError check(u8* base, u64 size, Mailbox* out);
// Maps an open file. errno is kept.
AttachError map(int fd, Mailbox* out);
// Opens by name, as a segment is, and maps.
AttachError attach(const char* path, Mailbox* out);
void detach(Mailbox* mailbox);

enum class Asked : u8 {
  Answered,
  Late,      // not within the patience, or the lane was full
  Unserved,  // nobody serves the lane
};
// Asks, and waits until question.deadline_ns at most.
Asked ask(const Mailbox& mailbox, const ScriptQuestion& question, ScriptAnswer* answer);

// ---- the worker's side; one worker a lane

// Nobody serves the lane any more; next() begins anew.
void leave(const Mailbox& mailbox, u32 lane);
// Takes the next question that somebody still waits for; waits for one until `until_ns`. False: there was none.
bool next(const Mailbox& mailbox, u32 lane, u64 until_ns, ScriptQuestion* question);
// Answers the question that was taken last.
void answer(const Mailbox& mailbox, u32 lane, const ScriptAnswer& answer);
// Fills in a row of the table and says its generation.
u32 publish(const Mailbox& mailbox, u32 index, const Row& row);
// How long a lane's worker has been at its question; 0: at none.
u64 serving_for_ns(const Mailbox& mailbox, u32 lane);

}  // namespace mishap::mailbox
