// Asking and answering, from threads: every question gets its own answer, nobody waits longer than the question says, and what
// one side leaves half done when it dies stops nobody.
#include "mailbox/mailbox.h"

#include <doctest/doctest.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

namespace mishap::mailbox {
namespace {

u64 now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<u64>(t.tv_sec) * 1'000'000'000 + static_cast<u64>(t.tv_nsec);
}
constexpr u64 kMillisecond = 1'000'000, kSecond = 1000 * kMillisecond;

struct Box {
  explicit Box(u32 lanes = 1) {
    const u64 size = size_of(lanes);
    memory = static_cast<u8*>(aligned_alloc(64, size));
    memset(memory, 0, size);
    format(memory, lanes);
    REQUIRE(check(memory, size, &mailbox) == AttachError::None);
  }
  ~Box() { free(memory); }
  Box(const Box&) = delete;

  ScriptQuestion question(u64 key, u64 patience_ns = 10 * kSecond) const {
    ScriptQuestion q = {};
    q.key = key;
    q.unit = key * 3;
    q.deadline_ns = now_ns() + patience_ns;
    return q;
  }

  u8* memory;
  Mailbox mailbox;
};

// Answers each question by its unit until stopped.
class Worker {
 public:
  Worker(const Mailbox& mailbox, u32 lane) : thread_([this, mailbox, lane] {
    while (!stop_) {
      ScriptQuestion q;
      if (!next(mailbox, lane, now_ns() + 5 * kMillisecond, &q)) continue;
      ScriptAnswer a = {};
      a.amount = q.unit;
      answer(mailbox, lane, a);
      answered++;
    }
    leave(mailbox, lane);
  }) {}
  ~Worker() {
    stop_ = true;
    thread_.join();
  }
  std::atomic<u64> answered = 0;

 private:
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

// Asks until it is answered, for as long as the question says: on a busy machine a worker may be away for so long that it is
// not asked, or whoever asks be taken for dead.
Asked ask_until_answered(const Mailbox& mailbox, const ScriptQuestion& q, ScriptAnswer* a) {
  Asked asked;
  while ((asked = ask(mailbox, q, a)) != Asked::Answered && now_ns() < q.deadline_ns) std::this_thread::yield();
  return asked;
}

// As if a worker were there.
void seen(const Mailbox& mailbox, u32 lane) { store(&mailbox.lanes[lane].seen_ns, now_ns() + 60 * kSecond); }

TEST_CASE("every question gets its own answer, whoever asks beside it") {
  const Box box(2);
  Worker first(box.mailbox, 0), second(box.mailbox, 1);
  std::atomic<u64> wrong = 0, late = 0;
  std::vector<std::thread> askers;
  for (u64 asker = 0; asker < 8; asker++)
    askers.emplace_back([&, asker] {
      for (u64 i = 0; i < 2000; i++) {
        ScriptAnswer a = {};
        const ScriptQuestion q = box.question(asker << 32 | i);
        if (ask_until_answered(box.mailbox, q, &a) != Asked::Answered) late++;
        else if (a.amount != q.unit) wrong++;
      }
    });
  for (std::thread& asker : askers) asker.join();
  CHECK(wrong == 0);
  CHECK(late == 0);
  CHECK(first.answered + second.answered >= 8 * 2000);  // one that was asked for again, too
}

TEST_CASE("a question whose answer was overtaken by a round of others does not wait for it") {
  const Box box;
  seen(box.mailbox, 0);
  std::atomic<bool> told = false;
  std::thread asker([&] {
    ScriptAnswer a;
    CHECK(ask(box.mailbox, box.question(1), &a) != Asked::Unserved);
    told = true;
  });
  // The places move on by a round between two looks of the asker's.
  MailboxSlot* slot = &box.mailbox.slots[0];
  while (load_acquire(&slot->turn) != 1) std::this_thread::yield();
  store_release(&slot->answered, 1 + kQuestions);
  for (const u64 until = now_ns() + kSecond; !told && now_ns() < until;) syscall(SYS_futex, &slot->answered, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  CHECK(told);
  asker.join();
}

TEST_CASE("nobody is asked where nobody serves") {
  const Box box;
  ScriptAnswer a;
  const u64 start = now_ns();
  CHECK(ask(box.mailbox, box.question(1), &a) == Asked::Unserved);
  ScriptQuestion q;
  CHECK_FALSE(next(box.mailbox, 0, now_ns(), &q));
  leave(box.mailbox, 0);
  CHECK(ask(box.mailbox, box.question(1), &a) == Asked::Unserved);
  CHECK(now_ns() - start < kSecond);
}

TEST_CASE("a worker that is not seen any more is not asked") {
  const Box box;
  store(&box.mailbox.lanes[0].seen_ns, now_ns() - kSecond);
  ScriptAnswer a;
  CHECK(ask(box.mailbox, box.question(1), &a) == Asked::Unserved);
}

TEST_CASE("a program waits as long as its question says, and one stuck question is nobody else's") {
  const Box box;
  seen(box.mailbox, 0);
  ScriptAnswer a, b;
  u64 start = now_ns();
  CHECK(ask(box.mailbox, box.question(1, 5 * kMillisecond), &a) == Asked::Late);
  CHECK(now_ns() - start >= 5 * kMillisecond);

  ScriptQuestion second = box.question(2, kSecond);
  std::thread asker([&] { CHECK(ask_until_answered(box.mailbox, second, &a) == Asked::Late); });
  ScriptQuestion q;
  while (!next(box.mailbox, 0, now_ns() + 5 * kMillisecond, &q)) {
  }
  CHECK(q.key == 2);  // nobody waits for the first
  timespec nap = {0, 500'000'000};
  nanosleep(&nap, nullptr);
  start = now_ns();
  CHECK(ask(box.mailbox, box.question(3, 400 * kMillisecond), &b) == Asked::Late);  // at once: it has been at the second for longer
  CHECK(now_ns() - start < 400 * kMillisecond);
  asker.join();
  // The worker died at it. The next one goes on behind.
  std::thread later([&] { CHECK(ask_until_answered(box.mailbox, box.question(4), &a) == Asked::Answered); });
  bool answered = false;
  for (const u64 until = now_ns() + 10 * kSecond; !answered && now_ns() < until;) {
    if (!next(box.mailbox, 0, now_ns() + 5 * kMillisecond, &q)) continue;
    CHECK(q.key == 4);
    answer(box.mailbox, 0, {});
    answered = true;
  }
  CHECK(answered);
  later.join();
}

TEST_CASE("a place that a dead program claimed is skipped") {
  const Box box;
  MailboxLane* lane = &box.mailbox.lanes[0];
  store(&lane->head, u64{1});  // claimed, and never written
  Worker worker(box.mailbox, 0);
  ScriptAnswer a;
  CHECK(ask_until_answered(box.mailbox, box.question(5), &a) == Asked::Answered);
  CHECK(a.amount == 15);
}

TEST_CASE("a full lane makes nobody wait") {
  const Box box;
  seen(box.mailbox, 0);
  store(&box.mailbox.lanes[0].head, u64{kQuestions});
  ScriptAnswer a;
  const u64 start = now_ns();
  CHECK(ask(box.mailbox, box.question(1), &a) == Asked::Late);
  CHECK(now_ns() - start < kSecond);
}

TEST_CASE("rows of the table have another generation each time") {
  const Box box;
  Row row = {};
  row.up.latency_ns = 5;
  const u32 first = publish(box.mailbox, 7, row), second = publish(box.mailbox, 7, row);
  CHECK(first != second);
  CHECK((box.mailbox.answers[7].seq >> 1) == second);
  CHECK(box.mailbox.answers[7].up.latency_ns == 5);
  CHECK(publish(box.mailbox, 0, row) == 0);
  CHECK(publish(box.mailbox, kAnswers, row) == 0);
}

TEST_CASE("what is no mailbox is refused") {
  const Box box(3);
  const u64 size = size_of(3);
  Mailbox out;
  CHECK(check(box.memory, size, &out) == AttachError::None);
  CHECK(out.lane_count == 3);
  CHECK(check(box.memory, size - 1, &out) == AttachError::Truncated);
  CHECK(check(box.memory, 8, &out) == AttachError::Truncated);
  for (u32 lanes : {0u, kMaxLanes + 1, ~0u}) {
    box.mailbox.header->lanes = lanes;
    CHECK(check(box.memory, size, &out) == AttachError::BadRegion);
  }
  box.mailbox.header->lanes = kMaxLanes;
  CHECK(check(box.memory, size, &out) == AttachError::Truncated);
  box.mailbox.header->lanes = 3;
  box.mailbox.header->layout_hash++;
  CHECK(check(box.memory, size, &out) == AttachError::BadLayout);
  box.mailbox.header->magic = 0;
  CHECK(check(box.memory, size, &out) == AttachError::BadMagic);
}

TEST_CASE("nothing in the memory makes a program hang or reach outside of it") {
  srand(7);
  for (u32 round = 0; round < 200; round++) {
    const Box box(2);
    u8* lanes = reinterpret_cast<u8*>(box.mailbox.lanes);
    const u64 bytes = 2 * (sizeof(MailboxLane) + kQuestions * sizeof(MailboxSlot));
    for (u32 i = 0; i < 2000; i++) lanes[static_cast<u64>(rand()) % bytes] = static_cast<u8>(rand());
    const u64 start = now_ns();
    ScriptAnswer a;
    ask(box.mailbox, box.question(static_cast<u64>(rand()), kMillisecond), &a);
    ScriptQuestion q;
    if (next(box.mailbox, 0, now_ns() + kMillisecond, &q)) answer(box.mailbox, 0, {});
    CHECK(now_ns() - start < 5 * kSecond);
  }
}

}  // namespace
}  // namespace mishap::mailbox
