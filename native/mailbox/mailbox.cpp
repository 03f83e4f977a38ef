// Asking and answering; see mailbox.h.
#include "mailbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "segment/words.h"

namespace mishap::mailbox {
namespace {

constexpr u32 kClaimAttempts = 64;
// How long a claimed place may stay without a question before its claimant is taken for dead.
constexpr u64 kUnwrittenNs = 20'000'000;
constexpr u64 kAbsentNs = 100'000'000;
// How long either side looks again and again before it sleeps: less than it takes to be woken.
constexpr u64 kSpinNs = 50'000;

u64 aligned(u64 offset) { return (offset + 63) & ~63ull; }

u64 clock_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<u64>(t.tv_sec) * 1'000'000'000 + static_cast<u64>(t.tv_nsec);
}

// By syscall(2): there is no other way.
long futex(u32* word, int operation, u32 value, const timespec* until) {
  const int kept = errno;
  const long result = syscall(SYS_futex, word, operation, value, until, nullptr, FUTEX_BITSET_MATCH_ANY);
  errno = kept;
  return result;
}

// Spins until it holds, or for so long.
template <class Holds>
bool spin(Holds holds) {
  for (const u64 until_ns = clock_ns() + kSpinNs; !holds();) {
    if (clock_ns() >= until_ns) return false;
    sched_yield();  // whoever is waited for may have been put on this very processor
  }
  return true;
}

// Sleeps while *word is `value`, until `until_ns` of CLOCK_MONOTONIC at most.
void sleep_on(u32* word, u32 value, u64 until_ns) {
  const timespec until = {static_cast<time_t>(until_ns / 1'000'000'000), static_cast<long>(until_ns % 1'000'000'000)};
  futex(word, FUTEX_WAIT_BITSET, value, &until);
}
void wake(u32* word) { futex(word, FUTEX_WAKE_BITSET, 1, nullptr); }

MailboxSlot* slot_at(const Mailbox& m, u32 lane, u64 position) { return &m.slots[static_cast<u64>(lane) * kQuestions + position % kQuestions]; }

// Frees a place for whoever comes a round later.
void free_slot(MailboxLane* lane, MailboxSlot* slot, u64 position) {
  store_release(&slot->turn, position + kQuestions);
  store_release(&lane->tail, position + 1);
}

}  // namespace

u64 size_of(u32 lanes) {
  u64 size = aligned(sizeof(MailboxHeader)) + static_cast<u64>(lanes) * (sizeof(MailboxLane) + kQuestions * sizeof(MailboxSlot));
  return aligned(size) + static_cast<u64>(kAnswers) * sizeof(Row);
}

void format(u8* base, u32 lanes) {
  MailboxHeader* header = reinterpret_cast<MailboxHeader*>(base);
  header->layout_hash = kLayoutHash;
  header->total_size = size_of(lanes);
  header->lanes = lanes;
  MailboxSlot* slots = reinterpret_cast<MailboxSlot*>(base + sizeof(MailboxHeader) + lanes * sizeof(MailboxLane));
  for (u32 i = 0; i < lanes * kQuestions; i++) slots[i].turn = i % kQuestions;
  store_release(&header->magic, kMailboxMagic);
}

AttachError check(u8* base, u64 size, Mailbox* out) {
  if (size < sizeof(MailboxHeader)) return AttachError::Truncated;
  MailboxHeader* header = reinterpret_cast<MailboxHeader*>(base);
  if (load_acquire(&header->magic) != kMailboxMagic) return AttachError::BadMagic;
  if (load(&header->layout_hash) != kLayoutHash) return AttachError::BadLayout;
  const u32 lanes = load(&header->lanes);
  if (lanes == 0 || lanes > kMaxLanes) return AttachError::BadRegion;
  if (size_of(lanes) > size) return AttachError::Truncated;
  out->base = base;
  out->size = size;
  out->header = header;
  out->lanes = reinterpret_cast<MailboxLane*>(base + sizeof(MailboxHeader));
  out->slots = reinterpret_cast<MailboxSlot*>(out->lanes + lanes);
  out->answers = reinterpret_cast<Row*>(base + size_of(lanes) - static_cast<u64>(kAnswers) * sizeof(Row));
  out->lane_count = lanes;
  return AttachError::None;
}

AttachError map(int fd, Mailbox* out) {
  const int kept = errno;
  AttachError error = AttachError::Foreign;
  struct stat st;
  if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 077)) {
    const u64 size = static_cast<u64>(st.st_size);
    void* base = size ? mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    error = base == MAP_FAILED ? AttachError::NoMap : check(static_cast<u8*>(base), size, out);
    if (base != MAP_FAILED && error != AttachError::None) munmap(base, size);
  }
  errno = kept;
  return error;
}

AttachError attach(const char* path, Mailbox* out) {
  const int kept = errno;
  AttachError error = AttachError::Missing;
  const int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
  if (fd >= 0) {
    error = map(fd, out);
    close(fd);
  }
  errno = kept;
  return error;
}

void detach(Mailbox* mailbox) {
  if (mailbox->base) munmap(mailbox->base, mailbox->size);
  *mailbox = {};
}

Asked ask(const Mailbox& m, const ScriptQuestion& question, ScriptAnswer* answer) {
  const u32 number = static_cast<u32>(question.key % m.lane_count);
  MailboxLane* lane = &m.lanes[number];
  const u64 since = load(&lane->serving_since_ns), seen = load(&lane->seen_ns), now = clock_ns();
  if (since == 0 && (seen == 0 || (now > seen && now - seen > kAbsentNs))) return Asked::Unserved;
  // It has been at another question for as long as we would wait.
  if (since && now > since && now + (now - since) > question.deadline_ns) return Asked::Late;

  u64 position = 0;
  MailboxSlot* slot = nullptr;
  for (u32 attempt = 0; attempt < kClaimAttempts && !slot; attempt++) {
    position = load(&lane->head);
    MailboxSlot* candidate = slot_at(m, number, position);
    const u64 turn = load_acquire(&candidate->turn);
    if (turn == position && swap_if(&lane->head, position, position + 1)) slot = candidate;
    else if (static_cast<i64>(turn - position) < 0) return Asked::Late;  // full
  }
  if (!slot) return Asked::Late;
  store_words(&slot->question, question, 0);
  if (!swap_if(&slot->turn, position, position + 1)) return Asked::Late;  // we were taken for dead
  __atomic_fetch_add(&lane->bell, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&lane->sleeping, __ATOMIC_SEQ_CST)) wake(&lane->bell);

  const u32 mine = static_cast<u32>(position + 1);
  // A round later, if we were not on a processor for that long, somebody else's question was answered in the same place.
  const auto over = [mine](u32 answered) { return static_cast<i32>(answered - mine) >= 0; };
  spin([&] { return over(load_acquire(&slot->answered)); });
  for (;;) {
    const u32 answered = load_acquire(&slot->answered);
    if (over(answered)) break;
    if (clock_ns() >= question.deadline_ns) return Asked::Late;
    __atomic_store_n(&slot->waiting, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&slot->answered, __ATOMIC_SEQ_CST) == answered) sleep_on(&slot->answered, answered, question.deadline_ns);
  }
  copy_words(answer, &slot->answer);
  fence_acquire();
  return load(&slot->answered) == mine ? Asked::Answered : Asked::Late;  // what we copied is another's
}

void leave(const Mailbox& m, u32 number) {
  if (number >= m.lane_count) return;
  store(&m.lanes[number].serving_since_ns, u64{0});
  store(&m.lanes[number].seen_ns, u64{0});
}

bool next(const Mailbox& m, u32 number, u64 until_ns, ScriptQuestion* question) {
  if (number >= m.lane_count) return false;
  MailboxLane* lane = &m.lanes[number];
  u64 unwritten_since_ns = 0, unwritten = ~u64{0};
  // Where one was answered just now, the next is often near.
  bool answered_last = clock_ns() - load(&lane->seen_ns) < kSpinNs;
  store(&lane->serving_since_ns, u64{0});
  for (;;) {
    const u64 position = load(&lane->tail);
    MailboxSlot* slot = slot_at(m, number, position);
    const u32 bell = __atomic_load_n(&lane->bell, __ATOMIC_SEQ_CST);
    const u64 turn = load_acquire(&slot->turn), now = clock_ns();
    store(&lane->seen_ns, now);
    if (turn == position + 1) {
      copy_words(question, &slot->question);
      question->flow[sizeof(question->flow) - 1] = question->host[sizeof(question->host) - 1] = question->sni[sizeof(question->sni) - 1] = 0;
      if (question->deadline_ns > now) {
        store(&lane->serving_since_ns, now);
        return true;
      }
      free_slot(lane, slot, position);
      continue;
    }
    const bool claimed = turn == position && static_cast<i64>(load(&lane->head) - position) > 0;
    if (!claimed || unwritten != position) {
      unwritten = position;
      unwritten_since_ns = now;
    } else if (now - unwritten_since_ns > kUnwrittenNs) {
      if (swap_if(&slot->turn, position, position + kQuestions)) store_release(&lane->tail, position + 1);
      continue;
    }
    if (turn != position) {  // behind a round: the tail is not where we left it
      store_release(&lane->tail, position + 1);
      if (now >= until_ns) return false;
      continue;
    }
    if (now >= until_ns && !claimed) return false;
    if (answered_last && spin([&] { return load_acquire(&slot->turn) == position + 1; })) continue;
    answered_last = false;
    __atomic_store_n(&lane->sleeping, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&slot->turn, __ATOMIC_SEQ_CST) != position + 1) sleep_on(&lane->bell, bell, claimed ? now + kUnwrittenNs / 4 : until_ns);
    store(&lane->sleeping, 0u);
  }
}

void answer(const Mailbox& m, u32 number, const ScriptAnswer& answer) {
  if (number >= m.lane_count) return;
  MailboxLane* lane = &m.lanes[number];
  const u64 position = load(&lane->tail);
  MailboxSlot* slot = slot_at(m, number, position);
  store_words(&slot->answer, answer, 0);
  __atomic_store_n(&slot->answered, static_cast<u32>(position + 1), __ATOMIC_SEQ_CST);
  const bool waiting = __atomic_exchange_n(&slot->waiting, 0, __ATOMIC_SEQ_CST);
  store(&lane->serving_since_ns, u64{0});
  store(&lane->seen_ns, clock_ns());
  free_slot(lane, slot, position);
  if (waiting) wake(&slot->answered);
}

u32 publish(const Mailbox& m, u32 index, const Row& row) {
  if (index == 0 || index >= kAnswers) return 0;
  return write_row(&m.answers[index], [&](Row* to) { store_row(to, row); }) >> 1;
}

u64 serving_for_ns(const Mailbox& m, u32 number) {
  const u64 since = number < m.lane_count ? load(&m.lanes[number].serving_since_ns) : 0, now = clock_ns();
  return since && now > since ? now - since : 0;
}

}  // namespace mishap::mailbox
