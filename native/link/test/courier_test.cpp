// The courier as programs meet it: the real binary beside a segment file, real sockets, and a clock.
#include <random>
#include <thread>

#include "run.h"

using namespace mishap;
using namespace mishap::link;

TEST_CASE("bytes of a stream arrive when due, in order, and the line is empty again") {
  Run run;
  Pair pair;
  connect_tcp(&pair);
  int on = 1;
  setsockopt(pair.near, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const int idle = run.descriptors() + 1;  // with one sender
  int sender = run.connect_sender();
  u64 start = now_ns();
  std::vector<u64> dues;
  for (int i = 0; i < 10; i++) {
    dues.push_back(start + kDelay + static_cast<u64>(i) * 5 * kMillisecond);
    REQUIRE(run.give(sender, run.parcel_for(pair.near, true, dues.back()), std::string(1, static_cast<char>('0' + i)), pair.near));
  }
  CHECK(run.line_bytes(pair.near) == 10);
  CHECK(soon([&] { return load(&run.flow_of(pair.near)->line_head_due_ns) == dues[0]; }));
  u32 room = load(&run.flow_of(pair.near)->line_room);
  std::string all;
  while (all.size() < 10) {
    Arrival arrival = receive(pair.far);
    REQUIRE(arrival.at_ns);
    CHECK(arrival.at_ns + kEarly >= dues[all.size() + arrival.bytes.size() - 1]);
    CHECK(arrival.at_ns < dues[all.size()] + kLate);
    all += arrival.bytes;
  }
  CHECK(all == "0123456789");
  CHECK(soon([&] { return run.line_bytes(pair.near) == 0; }));
  CHECK(load(&run.flow_of(pair.near)->line_head_due_ns) == 0);
  CHECK(load(&run.flow_of(pair.near)->line_room) > room);
  CHECK(soon([&] { return run.descriptors() == idle; }));  // no copy of the socket is kept
  close(sender);
}

TEST_CASE("what was sent before close, by a sender that is gone, arrives; then comes the end") {
  Run run;
  Pair pair;
  connect_tcp(&pair);
  int sender = run.connect_sender();
  u64 due = now_ns() + kDelay;
  REQUIRE(run.give(sender, run.parcel_for(pair.near, true, due), "last words", pair.near));
  pair.close_near();
  close(sender);
  Arrival words = receive(pair.far);
  CHECK(words.bytes == "last words");
  check_on_time(words.at_ns, due);
  Arrival end = receive(pair.far);
  CHECK(end.bytes == "");
  CHECK(end.at_ns < due + kLate);
}

TEST_CASE("a shutdown follows its bytes, and the other direction stays open") {
  Run run;
  Pair pair;
  connect_tcp(&pair);
  int sender = run.connect_sender();
  u64 due = now_ns() + kDelay;
  Parcel shutdown = run.parcel_for(pair.near, true, due);
  shutdown.kind = ParcelKind::Shutdown;
  REQUIRE(run.give(sender, run.parcel_for(pair.near, true, due), "question", pair.near));
  REQUIRE(run.give(sender, shutdown, "", pair.near));
  CHECK(receive(pair.far).bytes == "question");
  CHECK(receive(pair.far).bytes == "");
  REQUIRE(send(pair.far, "answer", 6, MSG_NOSIGNAL) == 6);
  CHECK(receive(pair.near).bytes == "answer");
  close(sender);
}

TEST_CASE("two senders of one stream are heard in the order of their due times") {
  Run run;
  Pair pair;
  connect_tcp(&pair);
  int one = run.connect_sender(), other = run.connect_sender();
  u64 due = now_ns() + kDelay;
  REQUIRE(run.give(other, run.parcel_for(pair.near, true, due + 1), "world", pair.near));
  REQUIRE(run.give(one, run.parcel_for(pair.near, true, due), "hello ", pair.near));
  std::string all = receive(pair.far).bytes;
  if (all.size() < 11) all += receive(pair.far).bytes;
  CHECK(all == "hello world");
  close(one);
  close(other);
}

TEST_CASE("datagrams leave each at its own time, copies with them, to where they are addressed") {
  Run run;
  Pair pair;
  connect_udp(&pair);
  int sender = run.connect_sender();
  u64 start = now_ns();
  Parcel late = run.parcel_for(pair.near, false, start + kDelay + 20 * kMillisecond);
  Parcel early = run.parcel_for(pair.near, false, start + kDelay);
  early.copies = 2;
  REQUIRE(run.give(sender, late, "late", pair.near));
  REQUIRE(run.give(sender, early, "early", pair.near));
  Pair elsewhere;
  connect_udp(&elsewhere);
  sockaddr_in address = Pair::loopback(elsewhere.far);
  Parcel addressed = run.parcel_for(pair.near, false, start + kDelay);
  memcpy(&addressed.address, &address, sizeof(address));
  addressed.address_length = sizeof(address);
  REQUIRE(run.give(sender, addressed, "", pair.near));

  for (int copy = 0; copy < 3; copy++) {
    Arrival arrival = receive(pair.far);
    CHECK(arrival.bytes == "early");
    check_on_time(arrival.at_ns, early.due_ns);
  }
  Arrival arrival = receive(pair.far);
  CHECK(arrival.bytes == "late");
  check_on_time(arrival.at_ns, late.due_ns);
  Arrival empty = receive(elsewhere.far);
  CHECK(empty.bytes == "");
  CHECK(empty.at_ns + kEarly >= early.due_ns);
  CHECK(soon([&] { return run.line_bytes(pair.near) == 0; }));
  close(sender);
}

TEST_CASE("a datagram is refused on its flow's account, and the next one leaves all the same") {
  Run run;
  Pair pair;
  connect_udp(&pair);
  sockaddr_in address = Pair::loopback(pair.far);
  close(pair.far);
  int sender = run.connect_sender();
  REQUIRE(run.give(sender, run.parcel_for(pair.near, false, now_ns()), "to nobody", pair.near));
  CHECK(soon([&] { return run.line_bytes(pair.near) == 0; }));
  pair.far = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  REQUIRE(bind(pair.far, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  REQUIRE(run.give(sender, run.parcel_for(pair.near, false, now_ns()), "to somebody", pair.near));
  CHECK(receive(pair.far).bytes == "to somebody");
  CHECK(load(&run.flow_of(pair.near)->line_error) == ECONNREFUSED);
  close(sender);
}

TEST_CASE("after the peer's reset the line is dropped and the error stays the program's") {
  Run run;
  Pair pair;
  connect_tcp(&pair);
  int sender = run.connect_sender();
  for (u64 later : {kDelay, 2 * kDelay})
    REQUIRE(run.give(sender, run.parcel_for(pair.near, true, now_ns() + later), "too late", pair.near));
  linger at_once = {1, 0};
  setsockopt(pair.far, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(pair.far);
  pair.far = -1;
  CHECK(soon([&] { return run.line_bytes(pair.near) == 0; }));
  CHECK(load(&run.flow_of(pair.near)->line_error) == 0);
  int error = 0;
  socklen_t length = sizeof(error);
  getsockopt(pair.near, SOL_SOCKET, SO_ERROR, &error, &length);
  CHECK(error == ECONNRESET);
  // Once the program has taken that, a send meets a broken pipe: the program's own next one does so too.
  REQUIRE(run.give(sender, run.parcel_for(pair.near, true, now_ns()), "much too late", pair.near));
  CHECK(soon([&] { return run.line_bytes(pair.near) == 0; }));
  CHECK(load(&run.flow_of(pair.near)->line_error) == 0);
  close(sender);
}

TEST_CASE("a connect happens when due, on a socket that is left blocking as it was") {
  Run run;
  int listener = listen_tcp();
  sockaddr_in address = Pair::loopback(listener);
  Pair pair;
  pair.near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int sender = run.connect_sender();
  u64 due = now_ns() + kDelay;
  Parcel parcel = run.parcel_for(pair.near, true, due);
  parcel.kind = ParcelKind::Connect;
  memcpy(&parcel.address, &address, sizeof(address));
  parcel.address_length = sizeof(address);
  REQUIRE(run.give(sender, parcel, "", pair.near));
  REQUIRE(run.give(sender, run.parcel_for(pair.near, true, due), "first", pair.near));
  REQUIRE(readable(listener, 5000));
  check_on_time(now_ns(), due);
  pair.far = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  CHECK(receive(pair.far).bytes == "first");
  CHECK((fcntl(pair.near, F_GETFL) & O_NONBLOCK) == 0);
  close(listener);

  Pair refused;
  refused.near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  Parcel again = run.parcel_for(refused.near, true, now_ns());
  again.kind = ParcelKind::Connect;
  memcpy(&again.address, &address, sizeof(address));  // where nobody listens any more
  again.address_length = sizeof(address);
  REQUIRE(run.give(sender, again, "", refused.near));
  int error = 0;
  socklen_t length = sizeof(error);
  CHECK(soon([&] { return getsockopt(refused.near, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error != 0; }));
  CHECK(error == ECONNREFUSED);
  close(sender);
}

TEST_CASE("a peer without room holds up its own flow alone; every byte arrives in order") {
  Run run;
  Pair slow, quick;
  connect_tcp(&slow, 4096);
  connect_tcp(&quick);
  int sender = run.connect_sender();
  std::string chunk(kParcelBytes, 0);
  std::string sent;
  std::mt19937 random(7);
  for (int i = 0; i < 64; i++) {
    for (char& byte : chunk) byte = static_cast<char>(random());
    sent += chunk;
    REQUIRE(run.give(sender, run.parcel_for(slow.near, true, now_ns()), chunk, slow.near));
  }
  u64 due = now_ns() + kDelay;
  REQUIRE(run.give(sender, run.parcel_for(quick.near, true, due), "unaffected", quick.near));
  Arrival arrival = receive(quick.far);
  CHECK(arrival.bytes == "unaffected");
  check_on_time(arrival.at_ns, due);
  CHECK(run.line_bytes(slow.near) > 0);
  slow.close_near();
  std::string received;
  while (received.size() < sent.size()) {
    Arrival part = receive(slow.far);
    REQUIRE(part.at_ns);
    REQUIRE(!part.bytes.empty());
    received += part.bytes;
  }
  CHECK(received == sent);
  CHECK(receive(slow.far).bytes == "");
  close(sender);
}

TEST_CASE("when the faults end, everything queued leaves at once, in order") {
  Run run;
  Pair pair;
  connect_tcp(&pair);
  int sender = run.connect_sender();
  u64 start = now_ns();
  for (int i = 0; i < 100; i++)
    REQUIRE(run.give(sender, run.parcel_for(pair.near, true, start + static_cast<u64>(60 + i) * kSecond), std::to_string(i) + " ", pair.near));
  CHECK_FALSE(readable(pair.far, 150));
  store(&run.segment.header->state, static_cast<u32>(State::Retired));
  std::string expected, all;
  for (int i = 0; i < 100; i++) expected += std::to_string(i) + " ";
  while (all.size() < expected.size()) {
    Arrival arrival = receive(pair.far);
    REQUIRE(arrival.at_ns);
    all += arrival.bytes;
  }
  CHECK(all == expected);
  CHECK(now_ns() - start < kSecond);
  close(sender);
}

TEST_CASE("evidence says what the clock said") {
  Run run;
  Pair pair;
  connect_tcp(&pair);
  int sender = run.connect_sender();
  Parcel parcel = run.parcel_for(pair.near, true, now_ns() + kDelay);
  parcel.sent_ns = parcel.due_ns - kDelay;
  parcel.part_ns[0] = kDelay;
  parcel.policy = 1;
  REQUIRE(run.give(sender, parcel, "measured", pair.near));
  REQUIRE(receive(pair.far).bytes == "measured");
  CHECK(soon([&] { return run.line_bytes(pair.near) == 0; }));
  Histogram* latency = histogram_of(run.segment, 1, Fault::Latency, Direction::Uplink);
  CHECK(latency->sum_ns >= kDelay - kEarly);
  CHECK(latency->sum_ns < kDelay + kLate);
  CHECK(latency->min_ns == latency->sum_ns + 1);
  // Without a delay to measure nothing is filed.
  REQUIRE(run.give(sender, run.parcel_for(pair.near, true, now_ns()), "unmeasured", pair.near));
  REQUIRE(receive(pair.far).bytes == "unmeasured");
  CHECK(latency->min_ns == latency->sum_ns + 1);
  close(sender);
}

TEST_CASE("at the end of the run it delivers what is queued and leaves nothing") {
  Run run;
  Pair pair;
  connect_tcp(&pair);
  int sender = run.connect_sender();
  u64 due = now_ns() + kDelay;
  REQUIRE(run.socket_exists());
  CHECK(load(&run.segment.header->courier_pid) == run.pid());  // as programs make sure whom they connected to
  REQUIRE(run.give(sender, run.parcel_for(pair.near, true, due), "in time", pair.near));
  run.close_input();
  CHECK(soon([&] { return !run.socket_exists(); }));
  // The sender lives on, and is told that nobody takes its parcels any more.
  CHECK(soon([&] { return !run.give(sender, run.parcel_for(pair.near, true, due), "", pair.near) && errno == EPIPE; }));
  Arrival arrival = receive(pair.far);
  CHECK(arrival.bytes == "in time");
  check_on_time(arrival.at_ns, due);
  CHECK(run.ended() == 0);
  CHECK(load(&run.segment.header->courier_pid) == 0);
  CHECK(run.line_bytes(pair.near) == 0);
  close(sender);
}

TEST_CASE("when the run was killed, everything queued leaves at once and nothing stays") {
  Run run;
  Pair pair;
  connect_tcp(&pair);
  int sender = run.connect_sender();
  for (int i = 0; i < 3; i++) REQUIRE(run.give(sender, run.parcel_for(pair.near, true, now_ns() + 600 * kSecond), "abc", pair.near));
  CHECK_FALSE(readable(pair.far, 100));
  store(reinterpret_cast<u32*>(run.segment.header->owner_lock), u32{FUTEX_OWNER_DIED});  // as the kernel leaves a dead owner's lock
  run.close_input();
  std::string all;
  while (all.size() < 9) {
    Arrival arrival = receive(pair.far);
    REQUIRE(arrival.at_ns);
    all += arrival.bytes;
  }
  CHECK(all == "abcabcabc");
  CHECK(run.ended() == 0);
  CHECK_FALSE(run.socket_exists());
  CHECK(run.line_bytes(pair.near) == 0);
  close(sender);
}

TEST_CASE("a socket that lingers when it closes holds up no other flow") {
  Run run;
  Pair lingering, other;
  connect_tcp(&lingering, 4096);
  connect_tcp(&other);
  int room = 1 << 20;
  linger patient = {1, 5};
  setsockopt(lingering.near, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
  setsockopt(lingering.near, SOL_SOCKET, SO_LINGER, &patient, sizeof(patient));
  int sender = run.connect_sender();
  u64 due = now_ns() + kDelay;
  Flow* flow = run.flow_of(lingering.near);
  REQUIRE(run.give(sender, run.parcel_for(lingering.near, true, due), std::string(kParcelBytes, 'x'), lingering.near));
  REQUIRE(run.give(sender, run.parcel_for(other.near, true, due + kDelay), "unaffected", other.near));
  lingering.close_near();  // the courier's copy is the last, and its peer does not read yet
  Arrival arrival = receive(other.far);
  CHECK(arrival.bytes == "unaffected");
  check_on_time(arrival.at_ns, due + kDelay);
  CHECK(load(&flow->line_bytes) == 0);
  u64 received = 0;
  for (Arrival part = receive(lingering.far); part.at_ns && !part.bytes.empty(); part = receive(lingering.far)) received += part.bytes.size();
  CHECK(received == kParcelBytes);
  close(sender);
}

TEST_CASE("at the end of the run peers who do not read hold nobody up, and still get everything when they do") {
  Run run;
  Pair pair;
  connect_tcp(&pair, 4096);
  int sender = run.connect_sender();
  std::string chunk(kParcelBytes, 'x');
  for (int i = 0; i < 64; i++) REQUIRE(run.give(sender, run.parcel_for(pair.near, true, now_ns()), chunk, pair.near));
  close(sender);
  pair.close_near();
  run.close_input();
  CHECK(run.said(5000) == "blocked\n");
  CHECK(run.alive());
  size_t received = 0;
  for (;;) {
    Arrival part = receive(pair.far);
    REQUIRE(part.at_ns);
    if (part.bytes.empty()) break;
    received += part.bytes.size();
  }
  CHECK(received == 64 * kParcelBytes);
  CHECK(run.ended() == 0);
}

TEST_CASE("past its bound it takes no more until there is room, and loses nothing") {
  Run run("400000");
  Pair pair;
  connect_tcp(&pair);
  int sender = run.connect_sender();
  std::string chunk(kParcelBytes, 'x');
  Parcel first = run.parcel_for(pair.near, true, now_ns() + 200 * kMillisecond);
  int given = 0;
  while (given < 100 && run.give(sender, first, chunk.data(), chunk.size(), {pair.near}, MSG_DONTWAIT)) given++;
  CHECK(given < 100);
  add(&run.flow_of(pair.near)->line_bytes, u64{0} - kParcelBytes);  // the one that was not taken
  std::thread rest([&] {
    for (int i = given; i < 100; i++) run.give(sender, first, chunk.data(), chunk.size(), {pair.near});
  });
  size_t received = 0;
  while (received < 100 * kParcelBytes) {
    Arrival part = receive(pair.far);
    if (!part.at_ns || part.bytes.empty()) break;
    received += part.bytes.size();
  }
  CHECK(received == 100 * kParcelBytes);
  rest.join();
  CHECK(soon([&] { return run.line_bytes(pair.near) == 0; }));
  close(sender);
}

TEST_CASE("garbage is dropped with its descriptors, and honest parcels still go through") {
  Run run;
  Pair pair, other;
  connect_tcp(&pair);
  connect_tcp(&other);
  const int idle = run.descriptors() + 1;  // with one sender
  int sender = run.connect_sender();
  const u64 far_off = now_ns() + 600 * kSecond;
  const Parcel good = run.parcel_for(pair.near, true, now_ns());
  std::vector<Parcel> bad;
  auto spoil = [&](auto change) {
    Parcel parcel = good;
    change(&parcel);
    bad.push_back(parcel);
  };
  spoil([](Parcel* p) { p->magic++; });
  spoil([](Parcel* p) { *(reinterpret_cast<u8*>(p) + offsetof(Parcel, kind)) = 200; });
  spoil([](Parcel* p) { *(reinterpret_cast<u8*>(p) + offsetof(Parcel, stream)) = 2; });
  spoil([](Parcel* p) { p->loss_fault = 255; });
  spoil([](Parcel* p) { p->cookie++; });
  spoil([](Parcel* p) { p->cookie = 0; });
  spoil([](Parcel* p) { p->flow = ~0u; });
  spoil([](Parcel* p) { p->flow++; });
  spoil([](Parcel* p) { p->due_ns = ~u64{0}; });
  spoil([](Parcel* p) { p->part_ns[2] = INT64_MIN; });
  spoil([](Parcel* p) { p->address_length = sizeof(p->address) + 1; });
  for (const Parcel& parcel : bad) REQUIRE(run.give(sender, parcel, "bad!", pair.near));
  // A descriptor of another socket than the one named, one that is no socket, none at all, and many.
  REQUIRE(run.give(sender, good, "bad!", other.near));
  REQUIRE(run.give(sender, good, "bad!", STDIN_FILENO));
  REQUIRE(run.give(sender, good, "bad!", 4, {}));
  REQUIRE(run.give(sender, run.parcel_for(pair.near, true, far_off), "good", 4, {pair.near, other.near, other.far, STDIN_FILENO}));
  // Cut short, too long, and noise.
  REQUIRE(send(sender, &good, 10, 0) == 10);
  REQUIRE(send(sender, &good, sizeof(good) - 1, 0) > 0);
  std::string noise(200000, 0);
  int room = 1 << 20;
  setsockopt(sender, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
  std::mt19937 random(3);
  for (char& byte : noise) byte = static_cast<char>(random());
  memcpy(noise.data(), &good, sizeof(good));
  send(sender, noise.data(), noise.size(), 0);
  for (int i = 0; i < 2000; i++) {
    Parcel parcel = good;
    parcel.cookie = random() % 2 ? good.cookie : random();
    parcel.due_ns = random() % 2 ? far_off : random();
    u8* raw = reinterpret_cast<u8*>(&parcel);
    for (u32 n = random() % 4; n > 0; n--) raw[random() % sizeof(parcel)] ^= static_cast<u8>(random());
    parcel.copies = random() % 3;
    run.give(sender, parcel, noise.data(), random() % 1000, {random() % 3 ? other.near : STDIN_FILENO});
  }
  CHECK(send(sender, "", 0, MSG_NOSIGNAL) == 0);  // to a reader, the same as the end
  close(sender);

  REQUIRE(run.alive());
  int honest = run.connect_sender();
  REQUIRE(run.give(honest, run.parcel_for(other.near, true, now_ns() + kDelay), "still here", other.near));
  CHECK(receive(other.far).bytes == "still here");
  store(&run.segment.header->state, static_cast<u32>(State::Retired));
  CHECK(receive(pair.far).bytes.substr(0, 4) == "good");
  CHECK(soon([&] { return run.descriptors() == idle; }));
  run.close_input();
  CHECK(run.ended() == 0);
  close(honest);
}

TEST_CASE("it says in one sentence why it cannot work") {
  int out[2];
  REQUIRE(pipe2(out, O_CLOEXEC) == 0);
  pid_t pid = fork();
  if (pid == 0) {
    dup2(out[1], 1);
    execl(MISHAP_COURIER, "mishap-courier", "/dev/shm/mishap-test-no-such-segment", nullptr);
    _exit(127);
  }
  close(out[1]);
  char text[256] = {};
  CHECK(read(out[0], text, sizeof(text) - 1) > 0);
  CHECK(std::string(text) == "the segment cannot be used: it is not there\n");
  int status;
  waitpid(pid, &status, 0);
  CHECK(WEXITSTATUS(status) == 1);
  close(out[0]);
}
