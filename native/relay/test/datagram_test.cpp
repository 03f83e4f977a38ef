// Datagrams: carried both ways as late as asked, from one port whoever they are for, and nobody's but the run's.
#include "run.h"

using namespace mishap;
using namespace mishap::relay;

namespace {

// A peer that programs send to.
Descriptor bind_udp(int family = AF_INET) {
  Descriptor fd(socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_storage address = loopback(family);
  REQUIRE(bind(fd, plain(address), sizeof(sockaddr_in6)) == 0);
  return fd;
}

struct Sender {
  std::string bytes;
  sockaddr_storage from = {};
  u64 at_ns = 0;
};
Sender receive_from(int fd, int timeout_ms = 5000) {
  Sender sender;
  char bytes[65536];
  socklen_t length = sizeof(sender.from);
  if (!ready(fd, POLLIN, timeout_ms)) return {"nothing came"};
  const ssize_t n = recvfrom(fd, bytes, sizeof(bytes), 0, reinterpret_cast<sockaddr*>(&sender.from), &length);
  sender.bytes = n < 0 ? strerror(errno) : std::string(bytes, static_cast<size_t>(n));
  sender.at_ns = now_ns();
  return sender;
}
void answer(int fd, const Sender& to, const std::string& text) { REQUIRE(sendto(fd, text.data(), text.size(), 0, plain(to.from), sizeof(sockaddr_in6)) >= 0); }

Row slow(u64 up_ns, u64 down_ns) {
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = up_ns;
  row.down.latency_ns = down_ns;
  return row;
}

}  // namespace

TEST_CASE("a datagram and its answer are as late as asked, and evidence says so") {
  for (const int family : {AF_INET, AF_INET6}) {
    const Row row = slow(30 * kMillisecond, 50 * kMillisecond);
    Run run(&row);
    Descriptor server = bind_udp(family);
    Descriptor program = run.talk_to(port_of(server), family);
    const u64 sent_ns = now_ns();
    say(program, "there");
    const Sender there = receive_from(server);
    CHECK(there.bytes == "there");
    CHECK(there.at_ns - sent_ns >= 30 * kMillisecond);
    CHECK(there.at_ns - sent_ns < 30 * kMillisecond + kLate);
    const u64 answered_ns = now_ns();
    answer(server, there, "back");
    const Arrival back = receive(program);
    CHECK(back.bytes == "back");
    CHECK(back.at_ns - answered_ns >= 50 * kMillisecond);
    CHECK(run.applied(Fault::Latency, Direction::Uplink) == 1);
    CHECK(soon([&] { return run.applied(Fault::Latency, Direction::Downlink) == 1; }));
    CHECK(load(&run.flow()->protocol) == static_cast<u8>(Protocol::Udp));
    CHECK(load(&run.flow()->up.called) == 5);
    CHECK(soon([&] { return load(&run.flow()->down.called) == 4; }));
  }
}

TEST_CASE("datagrams of any size go whole, and empty ones too") {
  const Row row = slow(kMillisecond, 0);
  Run run(&row);
  Descriptor server = bind_udp();
  Descriptor program = run.talk_to(port_of(server));
  for (const size_t size : {0, 1, 1472, 65507}) {
    say(program, std::string(size, 'x'));
    CHECK(receive_from(server).bytes == std::string(size, 'x'));
  }
}

TEST_CASE("every peer sees one port of a program's socket, and what comes from a stranger is shown as his") {
  Run run;
  Descriptor one = bind_udp(), other = bind_udp(), stranger = bind_udp();
  Descriptor program = run.talk_to(port_of(one));
  const sockaddr none = {AF_UNSPEC, {}};
  const sockaddr_storage to = loopback(AF_INET, run.pool_port(run.told.peer, port_of(other), AF_INET));
  say(program, "to one");
  const Sender at_one = receive_from(one);
  REQUIRE(connect(program, &none, sizeof(none)) == 0);
  REQUIRE(sendto(program, "to other", 8, 0, plain(to), sizeof(sockaddr_in)) == 8);
  const Sender at_other = receive_from(other);
  CHECK(at_other.bytes == "to other");
  const auto port_seen = [](const Sender& by) { return ntohs(reinterpret_cast<const sockaddr_in&>(by.from).sin_port); };
  CHECK(port_seen(at_one) == port_seen(at_other));
  answer(stranger, at_one, "who am I");
  const Sender told = receive_from(program);
  CHECK(told.bytes == "who am I");
  const u16 number = load(&run.pool->peer_of_port[port_seen(told)]);
  REQUIRE(number > 0);
  CHECK(load(&run.pool->peers[number - 1].port) == port_of(stranger));
}

TEST_CASE("nobody but the run's programs is carried") {
  Run run;
  Descriptor server = bind_udp();
  Descriptor program = run.talk_to(port_of(server)), other(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage to;
  socklen_t length = sizeof(to);
  REQUIRE(getpeername(program, reinterpret_cast<sockaddr*>(&to), &length) == 0);
  REQUIRE(sendto(other, "not ours", 8, 0, plain(to), length) == 8);
  CHECK(receive_from(server, 300).bytes == "nothing came");
}

TEST_CASE("what was sent and closed at once is carried still") {
  Run run;
  Descriptor server = bind_udp();
  Descriptor program = run.talk_to(port_of(server));
  run.sockets[run.told.row].local_port = port_of(program);
  run.signal(SIGSTOP);
  say(program, "and gone");
  program.reset();
  store(&run.sockets[run.told.row].owner.cookie, u64{0});
  run.signal(SIGCONT);
  CHECK(receive_from(server).bytes == "and gone");
}

TEST_CASE("a socket that was closed is let go once what it sent has left") {
  const Row row = slow(400 * kMillisecond, 0);
  Run run(&row);
  Descriptor server = bind_udp();
  const int before = run.descriptors();
  for (int i = 0; i < 50; i++) {
    Descriptor program = run.talk_to(port_of(server));
    say(program, std::to_string(i));
    REQUIRE(soon([&] { return find_flow(run.segment, run.told.cookie) != nullptr; }));
    store(&run.sockets[run.told.row].owner.cookie, u64{0});
  }
  for (int i = 0; i < 50; i++) CHECK(receive_from(server).bytes == std::to_string(i));
  // But for the ports that were made ready for further destinations, and the one socket that asks whose others are.
  CHECK(soon([&] { return run.descriptors() <= before + 51; }));
  CHECK(load(&run.flow()->state) == static_cast<u8>(FlowState::Idle));
}

TEST_CASE("what was sent before the run's end leaves when due") {
  const Row row = slow(300 * kMillisecond, 0);
  Run run(&row);
  Descriptor server = bind_udp();
  Descriptor program = run.talk_to(port_of(server));
  say(program, "last");
  REQUIRE(soon([&] { return find_flow(run.segment, run.told.cookie) != nullptr; }));
  CHECK(run.ended() == 0);
  CHECK(receive_from(server, 100).bytes == "last");
}
