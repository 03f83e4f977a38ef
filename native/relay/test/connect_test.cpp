// What programs' connects come to: refused, unreachable, unanswered, faulted; and whose flows they are.
#include "run.h"

using namespace mishap;
using namespace mishap::relay;

namespace {

// Reads the SYNs that go by, or the ICMPs, which takes a right that not every user has.
struct Wire {
  explicit Wire(int protocol = IPPROTO_TCP) : fd(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol)) {}
  Descriptor fd;
  // Whether it can; else it says that the case is skipped (tools/test.mjs).
  bool works() const {
    if (fd >= 0) return true;
    printf("SKIPPED relay: %s: raw sockets are not to be had: %s\n", doctest::getContextOptions()->currentTest->m_name, strerror(errno));
    fflush(stdout);
    return false;
  }
  // The sequence number of the SYN from this port.
  u32 isn_of(u16 source_port) {
    struct { iphdr ip; tcphdr tcp; u8 rest[256]; } packet;
    while (ready(fd, POLLIN, 2000) && recv(fd, &packet, sizeof(packet), 0) > 0)
      if (packet.tcp.syn && !packet.tcp.ack && ntohs(packet.tcp.source) == source_port) return ntohl(packet.tcp.seq);
    return 0;
  }
  // How many ICMPs about SYNs from this port have come.
  int told_of(u16 source_port) {
    struct { iphdr ip; u8 icmp[8]; iphdr quoted_ip; tcphdr quoted; } packet;
    while (recv(fd, &packet, sizeof(packet), 0) > 0) told += ntohs(packet.quoted.source) == source_port;
    return told;
  }
  int told = 0;
};

// A connect that is told with its SYN's number, as the kernel's redirection does.
Descriptor connect_watched(Run& run, Wire& wire, u16 peer_port, const u8* peer = nullptr) {
  Descriptor fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_storage to = loopback(AF_INET, load(&run.control->port));
  REQUIRE(connect(fd, plain(to), sizeof(sockaddr_in)) < 0);
  run.told = run.connect_of(fd, peer_port, AF_INET);
  if (peer) memcpy(run.told.peer, peer, 16);
  run.told.isn = wire.isn_of(port_of(fd));
  REQUIRE(run.told.isn);
  run.tell();
  return fd;
}

u16 closed_port() { return port_of(listen_tcp()); }

constexpr u8 kNowhere[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 255, 255, 255, 255};

}  // namespace

TEST_CASE("a refusal by the peer is one for the program, after both ways") {
  Wire wire;
  if (!wire.works()) return;
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = row.down.latency_ns = 20 * kMillisecond;
  Run run(&row);
  const u64 start = now_ns();
  Descriptor program = connect_watched(run, wire, closed_port());
  REQUIRE(ready(program, POLLOUT));
  CHECK(error_of(program) == ECONNREFUSED);
  CHECK(now_ns() - start >= 40 * kMillisecond);
  CHECK(now_ns() - start < 40 * kMillisecond + kLate);
}

TEST_CASE("refused and unreachable are what the program sees of such a fault") {
  Wire wire;
  if (!wire.works()) return;
  Row row = row_of({Fault::ConnectionError});
  row.error_ppm = 1000000;
  int expected = ECONNREFUSED;
  row.error_kind = static_cast<u8>(ErrorKind::Refused);
  SUBCASE("refused") {}
  SUBCASE("unreachable") {
    row.error_kind = static_cast<u8>(ErrorKind::Unreachable);
    expected = EHOSTUNREACH;
  }
  Run run(&row);
  Descriptor listener = listen_tcp();
  Descriptor program = connect_watched(run, wire, port_of(listener));
  REQUIRE(ready(program, POLLOUT));
  CHECK(error_of(program) == expected);
  CHECK_FALSE(ready(listener, POLLIN, 0));
  CHECK(run.applied(Fault::ConnectionError, Direction::Uplink) == 1);
  CHECK(load(&run.segment.stats[0].connects) == 1);
}

TEST_CASE("that there is no way is told until the program's socket has heard it") {
  Wire wire(IPPROTO_ICMP);
  if (!wire.works()) return;
  Row row = row_of({Fault::ConnectionError});
  row.error_ppm = 1000000;
  row.error_kind = static_cast<u8>(ErrorKind::Unreachable);
  Run run(&row);
  const int idle = run.descriptors();
  Descriptor program(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_storage to = loopback(AF_INET, load(&run.control->port));
  REQUIRE(connect(program, plain(to), sizeof(sockaddr_in)) < 0);
  run.told = run.connect_of(program, 80, AF_INET);  // another SYN's number: the kernel does as it does while it is at work
  KernelSocket& socket = run.sockets[run.told.row];
  socket.owner.cookie = run.told.cookie;
  store(&socket.tcp_state, u8{TCP_SYN_SENT});
  run.tell();
  CHECK(soon([&] { return wire.told_of(port_of(program)) >= 4; }));
  store(&socket.tcp_state, u8{TCP_CLOSE});
  CHECK(soon([&] { return load(&run.flow()->state) == static_cast<u8>(FlowState::Idle); }));
  const int told = wire.told_of(port_of(program));
  usleep(50'000);
  CHECK(wire.told_of(port_of(program)) == told);
  CHECK(run.descriptors() == idle);
}

TEST_CASE("where there is no way to the peer, the program sees that") {
  Wire wire;
  if (!wire.works()) return;
  Run run;
  Descriptor program = connect_watched(run, wire, 80, kNowhere);
  REQUIRE(ready(program, POLLOUT));
  CHECK(error_of(program) == ENETUNREACH);
}

TEST_CASE("a connect that times out is met with silence, and the relay keeps nothing of it") {
  Row row = row_of({Fault::Latency, Fault::ConnectTimeout});
  row.up.latency_ns = row.down.latency_ns = 40 * kMillisecond;
  row.connect_timeout_ns = 60 * kMillisecond;
  Run run(&row);
  const int idle = run.descriptors();
  Descriptor listener = listen_tcp();
  Descriptor program = run.connect_to(port_of(listener));
  CHECK_FALSE(ready(program, POLLOUT, 150));
  CHECK_FALSE(ready(listener, POLLIN, 0));
  CHECK(run.applied(Fault::ConnectTimeout, Direction::Uplink) == 0);  // the program was not told
  CHECK(run.unsupported() == 1);
  CHECK(load(&run.flow()->state) == static_cast<u8>(FlowState::Idle));
  CHECK(run.descriptors() == idle);
}

TEST_CASE("a lost SYN is repaired as late as the host repairs it") {
  Row row = row_of({Fault::PacketLoss});
  row.up.loss_ppm = 500000;
  Run run(&row);
  Descriptor listener = listen_tcp();
  u64 longest = 0;
  for (int i = 0; i < 40 && longest < kSecond; i++) {  // ports differ, and so do draws
    const u64 start = now_ns();
    Descriptor program = run.connect_to(port_of(listener));
    if (!ready(program, POLLOUT, 1200)) continue;  // lost twice or more
    CHECK(error_of(program) == 0);
    longest = std::max(longest, now_ns() - start);
  }
  CHECK(longest >= kSecond);
  CHECK(longest < kSecond + kLate);
}

TEST_CASE("a program that gave up meanwhile costs nothing, and the peer hears of a reset") {
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = row.down.latency_ns = 20 * kMillisecond;
  Run run(&row);
  const int idle = run.descriptors();
  Descriptor listener = listen_tcp();
  run.connect_to(port_of(listener)).reset();
  REQUIRE(ready(listener, POLLIN));
  Descriptor server(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  CHECK(receive(server).bytes == "reset");
  CHECK(soon([&] { return run.descriptors() == idle; }));
}

TEST_CASE("a socket that connects again has a flow of its own to go on with") {
  Row row = row_of({Fault::Latency});
  row.up.latency_ns = 50 * kMillisecond;
  Run run(&row);
  Descriptor listener = listen_tcp();
  Descriptor program = run.connect_to(port_of(listener));
  REQUIRE(ready(program, POLLOUT));
  REQUIRE(error_of(program) == 0);
  say(program, "one");
  const sockaddr nowhere = {};
  usleep(5000);
  REQUIRE(connect(program, &nowhere, sizeof(nowhere)) == 0);  // the connection is reset, the socket stays
  const sockaddr_storage to = loopback(AF_INET, load(&run.control->port));
  connect(program, plain(to), sizeof(sockaddr_in));
  run.told = run.connect_of(program, port_of(listener), AF_INET);
  run.tell();
  REQUIRE(ready(program, POLLOUT));
  REQUIRE(error_of(program) == 0);
  Descriptor first(accept(listener, nullptr, nullptr)), second(accept(listener, nullptr, nullptr));
  CHECK(receive(first).bytes == "one");
  CHECK(receive(first).bytes == "reset");
  CHECK(load(&run.flow()->state) == static_cast<u8>(FlowState::Open));
  CHECK(load(&run.flow()->ordinal) >= 1);
  say(program, "two");
  CHECK(receive(second).bytes == "two");
}

TEST_CASE("flows are named by thread and order, owned, and in the journal") {
  Run run(nullptr, kHeaderJournal);
  Descriptor listener = listen_tcp();
  const std::string peer = "tcp:127.0.0.1:" + std::to_string(port_of(listener));
  auto next_name = [&] {
    Event event = {};
    u32 patience = 0;
    REQUIRE(soon([&] { return pop_event(run.segment, &event, &patience); }));
    CHECK(event.kind == static_cast<u8>(EventKind::FlowOpened));
    return std::string(event.flow);
  };
  Descriptor first = run.connect_to(port_of(listener));
  CHECK(next_name() == peer + "#1@0");
  Descriptor second = run.connect_to(port_of(listener));
  CHECK(next_name() == peer + "#2@0");
  REQUIRE(soon([&] { return find_flow(run.segment, run.told.cookie) != nullptr; }));
  CHECK(run.flow()->ordinal == 2);
  const Owner* owner = find_owner(run.segment, run.told.cookie);
  REQUIRE(owner);
  CHECK(owner->tid == getpid());

  auto connect_as = [&](i32 pid, i32 tid) {
    Descriptor fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const sockaddr_storage to = loopback(AF_INET, load(&run.control->port));
    connect(fd, plain(to), sizeof(sockaddr_in));
    run.told = run.connect_of(fd, port_of(listener), AF_INET);
    run.told.pid = pid;
    run.told.tid = tid;
    run.told.process = process_key(pid, 1);
    run.tell();
    return fd;
  };
  Descriptor thread = connect_as(getpid(), 99999);
  CHECK(next_name() == peer + "#1@0.1");
  Descriptor other = connect_as(88888, 88888);
  CHECK(next_name() == peer + "#1@0/1");
  REQUIRE(register_process(run.segment, 77777, 1, "0/2.1", "/bin/program", now_ns()));
  Descriptor known = connect_as(77777, 77777);
  CHECK(next_name() == peer + "#1@0/2.1");
}

TEST_CASE("who hands over nonsense changes nothing") {
  Run run;
  Descriptor fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  memset(&run.told, 0xff, sizeof(run.told));
  run.told.row = 1;
  run.tell();
  run.told.row = ~0u;
  CHECK(run.send_raw(run.told, sizeof(run.told)));
  CHECK(run.send_raw(run.told, 5));
  Pair pair(run);
  say(pair.program, "still there");
  CHECK(receive(pair.server).bytes == "still there");
}

TEST_CASE("the relay beats while it is there") {
  Run run;
  u64 seen = load(&run.control->beat_ns);
  CHECK(seen != 0);
  CHECK(load(&run.control->netns) != 0);
  for (int i = 0; i < 5; i++) {
    CHECK(soon([&] { return load(&run.control->beat_ns) != seen; }));
    CHECK(load(&run.control->beat_ns) - seen < 100 * kMillisecond + kLate);
    seen = load(&run.control->beat_ns);
  }
  CHECK(run.ended() == 0);
  CHECK(load(&run.control->beat_ns) == 0);
}
