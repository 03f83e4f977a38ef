// The relay as programs meet it: the real binary, real sockets, and a clock.
#include <random>
#include <thread>

#include "run.h"

using namespace mishap;
using namespace mishap::relay;

namespace {

// Sends random bytes in random pieces, then the end of the stream, and receives at the other end until that end.
u64 send_and_compare(int from, int to, size_t size, u32 seed) {
  std::mt19937 random(seed);
  std::string sent(size, 0);
  for (char& byte : sent) byte = static_cast<char>(random());
  std::thread sender([&] {
    for (size_t at = 0; at < size;) {
      const size_t piece = std::min<size_t>(size - at, 1 + random() % 200000);
      const ssize_t n = send(from, sent.data() + at, piece, MSG_NOSIGNAL);
      if (n > 0) at += static_cast<size_t>(n);
      else if (errno != EAGAIN || !ready(from, POLLOUT)) break;
    }
    shutdown(from, SHUT_WR);
  });
  const u64 start = now_ns();
  const std::string received = receive_all(to, size + 1);
  const u64 took = now_ns() - start;
  sender.join();
  CHECK(received.size() == sent.size());
  CHECK((received == sent));
  return took;
}

constexpr size_t kTenMegabytes = 10 << 20;

}  // namespace

TEST_CASE("without a policy every byte passes, both ways, in IPv4 and IPv6, and is accounted for") {
  Run run;
  const int idle = run.descriptors();
  for (int family : {AF_INET, AF_INET6}) {
    Pair pair(run, family);
    const RelayRow& row = run.rows[run.told.row];
    sockaddr_storage peer;
    socklen_t length = sizeof(peer);
    REQUIRE(getpeername(pair.server, reinterpret_cast<sockaddr*>(&peer), &length) == 0);
    CHECK(row.local_port == ntohs(reinterpret_cast<sockaddr_in*>(&peer)->sin_port));  // what the program is shown as its own end
    CHECK(memcmp(row.local, run.told.source, 16) == 0);
    send_and_compare(pair.program, pair.server, kTenMegabytes, 1);
    send_and_compare(pair.server, pair.program, kTenMegabytes, 2);
    CHECK(load(&run.flow()->up.called) == kTenMegabytes);
    CHECK(load(&run.flow()->down.called) == kTenMegabytes);
    CHECK(soon([&] { return load(&run.flow()->state) == static_cast<u8>(FlowState::Idle); }));
  }
  CHECK(soon([&] { return run.descriptors() == idle; }));
}

TEST_CASE("every byte passes in order through a policy that cuts, delays and repairs") {
  Row row = row_of({Fault::Latency, Fault::Jitter, Fault::PacketLoss});
  row.up.latency_ns = row.down.latency_ns = 2 * kMillisecond;
  row.up.jitter_ns = row.down.jitter_ns = kMillisecond;
  row.up.loss_ppm = row.down.loss_ppm = 5'000;  // of some 7,000 units: with a tenth of it one run in thirty lost none
  Run run(&row);
  Pair pair(run);
  send_and_compare(pair.program, pair.server, kTenMegabytes, 3);
  send_and_compare(pair.server, pair.program, kTenMegabytes, 4);
  CHECK(load(&run.flow()->up.bytes) == kTenMegabytes);
  CHECK(load(&run.flow()->down.bytes) == kTenMegabytes);
  const Histogram* times = run.times(Fault::PacketLoss, Direction::Uplink);
  REQUIRE(times);
  CHECK(load(&times->count) > 0);
}

TEST_CASE("a latency is met each way, by the connect too, and measured") {
  constexpr u64 kWay = 20 * kMillisecond;
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = row.down.latency_ns = kWay;
  Run run(&row);
  Pair pair(run);
  CHECK(pair.connected_ns - pair.began_ns >= 2 * kWay);
  CHECK(pair.connected_ns - pair.began_ns < 2 * kWay + kLate);
  u64 worst = 0, sum = 0;
  constexpr int kTimes = 20;
  for (int i = 0; i < kTimes; i++) {
    u64 start = now_ns();
    say(pair.program, "ping");
    Arrival ping = receive(pair.server);
    CHECK(ping.bytes == "ping");
    CHECK(ping.at_ns - start >= kWay);
    CHECK(ping.at_ns - start < kWay + kLate);
    const u64 turn = now_ns();
    say(pair.server, "pong");
    Arrival pong = receive(pair.program);
    CHECK(pong.bytes == "pong");
    CHECK(pong.at_ns - turn >= kWay);
    CHECK(pong.at_ns - turn < kWay + kLate);
    worst = std::max(worst, pong.at_ns - turn - kWay);
    sum += pong.at_ns - turn - kWay;
  }
  MESSAGE("20 ms down: late by " << sum / kTimes / 1000 << " us on average, " << worst / 1000 << " us at worst");
  CHECK(soon([&] { return run.applied(Fault::Latency, Direction::Uplink) == kTimes + 1; }));  // filed once it has left
  CHECK(soon([&] { return run.applied(Fault::Latency, Direction::Downlink) == kTimes + 1; }));
  const Histogram* times = run.times(Fault::Latency, Direction::Uplink);
  REQUIRE(times);
  CHECK(load(&times->sum_ns) >= load(&times->asked_sum_ns));
  CHECK(load(&run.flow()->up.ops) == kTimes);
}

TEST_CASE("lost units of a stream in drop mode never arrive, and are counted") {
  Row row = row_of({Fault::PacketLoss});
  row.up.loss_ppm = 1000000;
  row.loss_mode = static_cast<u8>(LossMode::Drop);
  Run run;
  Pair pair(run);  // its connect is spared
  run.publish(row);
  say(pair.program, std::string(5000, 'x'));
  CHECK(receive(pair.server, 100).bytes == "nothing came");
  CHECK(soon([&] { return run.applied(Fault::PacketLoss, Direction::Uplink) == 4; }));  // units of 1448 bytes
  CHECK(load(&run.segment.stats[0].accounts[static_cast<u32>(Account::Dropped) * kDirections]) == 5000);
  say(pair.server, "the other way");
  CHECK(receive(pair.program).bytes == "the other way");
}

TEST_CASE("a rate is kept") {
  Row row = row_of({Fault::Rate});
  row.up.rate_bps = 40'000'000;
  Run run(&row);
  Pair pair(run);
  constexpr size_t kBytes = 2'500'000;
  const u64 took = send_and_compare(pair.program, pair.server, kBytes, 5);
  MESSAGE("40 Mbit/s: " << kBytes * 8000 / took * 1000 / 1000 << " Mbit/s");
  CHECK(took > 480 * kMillisecond);
  CHECK(took < 520 * kMillisecond + 2 * kLate);
}

TEST_CASE("a mutation changes what one read carried") {
  Row row = row_of({Fault::PayloadMutation});
  row.mutation_ppm = 1000000;
  row.mutation_every_n = 1;
  SUBCASE("replace") {
    row.mutation_type = static_cast<u8>(MutationType::ReplacePattern);
    memcpy(row.replace_find, "cat", row.find_length = 3);
    memcpy(row.replace_with, "tiger", row.replace_length = 5);
    Run run(&row);
    Pair pair(run);
    say(pair.program, "a cat");
    CHECK(receive(pair.server).bytes == "a tiger");
    say(pair.server, "no cat");
    CHECK(receive(pair.program).bytes == "no tiger");
    CHECK(run.applied(Fault::PayloadMutation, Direction::Uplink) == 1);
    CHECK(run.applied(Fault::PayloadMutation, Direction::Downlink) == 1);
  }
  SUBCASE("truncate") {
    row.mutation_type = static_cast<u8>(MutationType::Truncate);
    row.truncate_size = 4;
    row.mutation_target = static_cast<u8>(MutationTarget::UplinkOnly);
    Run run(&row);
    Pair pair(run);
    say(pair.program, "much too long");
    CHECK(receive(pair.server).bytes == "much");
    say(pair.server, "as it is");
    CHECK(receive(pair.program).bytes == "as it is");
    CHECK(load(&run.segment.stats[0].accounts[static_cast<u32>(Account::Cut) * kDirections]) == 9);
  }
}

TEST_CASE("copies and units that were overtaken arrive as decided") {
  Row row = row_of({Fault::PacketDuplicate});
  SUBCASE("copies") {
    row.duplicate_ppm = 1000000;
    row.duplicate_max_extra = 1;
    Run run(&row);
    Pair pair(run);
    say(pair.program, "twice");
    CHECK(receive_all(pair.server, 10) == "twicetwice");
    CHECK(run.applied(Fault::PacketDuplicate, Direction::Uplink) == 1);
  }
  SUBCASE("held, until its time has come") {
    row = row_of({Fault::PacketReorder});
    row.reorder_ppm = 1000000;
    row.reorder_window = 1;
    row.reorder_max_delay_ns = 60 * kMillisecond;
    Run run(&row);
    Pair pair(run);
    const std::string late(kStreamUnitBytes, 'a'), early(kStreamUnitBytes, 'b');
    say(pair.program, late);
    usleep(10000);
    say(pair.program, early);  // no more than one is held
    CHECK(receive_all(pair.server, 2 * kStreamUnitBytes) == early + late);
    const u64 start = now_ns();
    say(pair.program, "alone");
    const Arrival alone = receive(pair.server);
    CHECK(alone.bytes == "alone");
    CHECK(alone.at_ns - start >= 60 * kMillisecond - kMillisecond / 10);
    CHECK(load(&run.times(Fault::PacketReorder, Direction::Uplink)->count) == 1);
  }
}

TEST_CASE("a fault may reset the connection, at both ends") {
  Row row = row_of({Fault::ConnectionError});
  row.error_ppm = 1000000;
  row.error_kind = static_cast<u8>(ErrorKind::Reset);
  Run run(&row);
  Pair pair(run);
  say(pair.program, "never arrives");
  CHECK(receive(pair.program).bytes == "reset");
  CHECK(receive(pair.server).bytes == "reset");
  CHECK(run.applied(Fault::ConnectionError, Direction::Uplink) == 1);
}

TEST_CASE("a half-open connection is silent behind its limit") {
  Row row = row_of({Fault::HalfOpen});
  row.half_open_bytes = 10;
  Run run(&row);
  Pair pair(run);
  const int idle = run.descriptors();
  say(pair.program, "0123456789abc");
  CHECK(receive(pair.server).bytes == "0123456789");
  say(pair.program, "more");
  say(pair.server, "an answer");
  CHECK(receive(pair.server, 50).bytes == "nothing came");
  CHECK(receive(pair.program, 50).bytes == "nothing came");
  CHECK(run.applied(Fault::HalfOpen, Direction::Uplink) == 1);
  pair.program.reset();
  CHECK(soon([&] { return run.descriptors() == idle - 2; }));
}

TEST_CASE("a spent budget with the timeout action is silence, then the end") {
  Row row = row_of({Fault::SessionBudget});
  row.budget_max_tx = 4;
  row.budget_action = static_cast<u8>(BudgetAction::Timeout);
  row.budget_timeout_ns = 100 * kMillisecond;
  Run run(&row);
  Pair pair(run);
  const u64 start = now_ns();
  say(pair.program, "12345");
  CHECK(receive(pair.server).bytes == "1234");
  const Arrival end = receive(pair.program);
  CHECK(end.bytes == "reset");
  CHECK(end.at_ns - start >= 100 * kMillisecond);
  CHECK(end.at_ns - start < 100 * kMillisecond + kLate);
  CHECK(run.applied(Fault::SessionBudget, Direction::Uplink) == 1);
}

TEST_CASE("an end follows its bytes, as late as they are, and the other way stays open") {
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = row.down.latency_ns = 30 * kMillisecond;
  Run run(&row);
  Pair pair(run);
  const u64 start = now_ns();
  say(pair.program, "question");
  shutdown(pair.program, SHUT_WR);
  CHECK(receive(pair.server).bytes == "question");
  const Arrival end = receive(pair.server);
  CHECK(end.bytes == "");
  CHECK(end.at_ns - start >= 30 * kMillisecond);
  say(pair.server, "answer");
  pair.server.reset();
  CHECK(receive(pair.program).bytes == "answer");
  CHECK(receive(pair.program).bytes == "");
}

TEST_CASE("a reset is passed on as one, behind the bytes before it") {
  Row row = row_of({Fault::Latency});
  row.down.latency_ns = 30 * kMillisecond;
  Run run(&row);
  Pair pair(run);
  say(pair.server, "last words");
  usleep(5000);
  const linger at_once = {1, 0};
  setsockopt(pair.server, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  const u64 start = now_ns();
  pair.server.reset();
  CHECK(receive(pair.program).bytes == "last words");
  const Arrival end = receive(pair.program);
  CHECK(end.bytes == "reset");
  CHECK(end.at_ns - start >= 30 * kMillisecond);
}

TEST_CASE("a death of the relay is an error at both ends, never the end of a stream") {
  Run run;
  Pair pair(run);
  say(pair.server, "a part");
  CHECK(receive(pair.program).bytes == "a part");
  run.kill_relay();
  CHECK(receive(pair.program).bytes == "reset");
  CHECK(receive(pair.server).bytes == "reset");
}

TEST_CASE("when faults end, what is on the lines leaves at once, in order") {
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = 60 * kSecond;
  Run run;
  Pair pair(run);
  run.publish(row);
  say(pair.program, "one ");
  CHECK(receive(pair.server, 50).bytes == "nothing came");
  say(pair.program, "two");
  usleep(20000);
  store(&run.segment.header->state, static_cast<u32>(State::Retired));
  CHECK(receive_all(pair.server, 7) == "one two");
}

TEST_CASE("at the end of the run what a program sent before it ended still arrives, when due") {
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = 200 * kMillisecond;
  Run run(&row);
  Pair gone(run), there(run);
  CHECK(load(&run.control->beat_ns) != 0);
  const u64 start = now_ns();
  say(gone.program, "last words");
  gone.program.reset();
  usleep(10000);
  CHECK(run.ended() == 0);
  CHECK(load(&run.control->beat_ns) == 0);
  CHECK(receive(gone.server).bytes == "last words");
  CHECK(receive(gone.server).bytes == "");
  CHECK(now_ns() - start >= 200 * kMillisecond);
  CHECK(receive(there.program).bytes == "reset");
}

TEST_CASE("a peer that does not read costs its own connection alone") {
  Run run;
  Pair stuck(run), other(run);
  const std::string chunk(65536, 'x');
  size_t sent = 0;
  for (ssize_t n; ready(stuck.program, POLLOUT, 200) && (n = send(stuck.program, chunk.data(), chunk.size(), MSG_NOSIGNAL)) > 0;) sent += static_cast<size_t>(n);
  CHECK(sent < 64 << 20);
  say(other.program, "hello");
  CHECK(receive(other.server).bytes == "hello");
  CHECK(receive_all(stuck.server, sent).size() == sent);
}

TEST_CASE("500 connections at once, and none leaves a descriptor behind") {
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = row.down.latency_ns = 5 * kMillisecond;
  Run run(&row);
  const int idle = run.descriptors();
  Descriptor listener = listen_tcp();
  for (int round = 0; round < 3; round++) {
    std::vector<Descriptor> programs, servers;
    for (int i = 0; i < 500; i++) programs.push_back(run.connect_to(port_of(listener)));
    for (int i = 0; i < 500; i++) {
      REQUIRE(ready(listener, POLLIN));
      servers.emplace_back(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    }
    for (const Descriptor& program : programs) {
      REQUIRE(ready(program, POLLOUT));
      REQUIRE(error_of(program) == 0);
      say(program, "hello");
    }
    for (const Descriptor& server : servers) {
      REQUIRE(receive(server).bytes == "hello");
      say(server, "welcome");
    }
    for (const Descriptor& program : programs) REQUIRE(receive(program).bytes == "welcome");
    if (round == 1) servers.clear();  // who ends first matters to TCP
    programs.clear();
    servers.clear();
    CHECK(soon([&] { return run.descriptors() == idle; }));
  }
}
