// Many flows at once, both ways, through a courier that may hold very little: every byte arrives, in its place, whatever
// else is sent to the courier meanwhile.
#include <random>
#include <thread>

#include "run.h"

using namespace mishap;
using namespace mishap::link;

namespace {

constexpr size_t kFlows = 24, kBytes = 3000000;

// One direction of a flow: what goes from one socket to the other.
struct Way {
  int from, to;
  Parcel parcel;
  const char* content;
  size_t sent = 0, received = 0;
  bool ended = false;
};

// What no courier may take for a parcel, with a real socket on it.
void send_garbage(Run* run, int sender, const Way& way, std::mt19937* random) {
  Parcel parcel = way.parcel;
  if ((*random)() % 2) parcel.cookie += 1 + (*random)() % 1000;
  else parcel.magic ^= 1 + (*random)() % 1000;
  parcel.flow = ~0u;  // nobody's line
  run->give(sender, parcel, way.content, (*random)() % 2000, {way.from, way.to});
  send(sender, &way.parcel, 1 + (*random)() % (sizeof(Parcel) - 1), MSG_NOSIGNAL);
}

// Everything of every way, in turns and in pieces of any size, each due within the next 2 ms; then its end.
void send_all(Run* run, std::vector<Way>* ways) {
  std::mt19937 random(11);
  int senders[] = {run->connect_sender(), run->connect_sender(), run->connect_sender()};
  int garbage = run->connect_sender();
  for (size_t left = ways->size(); left > 0;) {
    for (size_t i = 0; i < ways->size(); i++) {
      Way& way = (*ways)[i];
      if (way.ended) continue;
      Parcel parcel = way.parcel;
      parcel.due_ns = now_ns() + random() % (2 * kMillisecond);
      size_t piece = std::min<size_t>(1 + random() % kParcelBytes, kBytes - way.sent);
      way.ended = piece == 0;
      if (way.ended) parcel.kind = ParcelKind::Shutdown, left--;
      run->give(senders[i % 3], parcel, way.content + way.sent, piece, {way.from});
      way.sent += piece;
      if (random() % 8 == 0) send_garbage(run, garbage, way, &random);
    }
  }
  for (int sender : senders) close(sender);
  close(garbage);
}

}  // namespace

TEST_CASE("24 flows of 3 MB each way arrive whole through a line of 300 KB, with garbage in between") {
  Run run("300000");
  const int idle = run.descriptors();
  std::vector<Pair> pairs(kFlows);
  std::string content(kBytes + 2 * kFlows * 1009, 0);
  std::mt19937 random(5);
  for (char& byte : content) byte = static_cast<char>(random());
  std::vector<Way> ways;
  for (Pair& pair : pairs) {
    connect_tcp(&pair);
    for (auto [from, to] : {std::pair{pair.near, pair.far}, std::pair{pair.far, pair.near}})
      ways.push_back({from, to, run.parcel_for(from, true, 0), content.data() + ways.size() * 1009});
  }
  std::vector<pollfd> look;
  for (const Way& way : ways) look.push_back({way.to, POLLIN, 0});

  std::thread sending(send_all, &run, &ways);
  std::vector<char> piece(1 << 20);
  size_t open = ways.size(), wrong = 0;
  while (open > 0 && poll(look.data(), look.size(), 5000) > 0) {
    for (size_t i = 0; i < ways.size(); i++) {
      if (!look[i].revents) continue;
      ssize_t n = recv(ways[i].to, piece.data(), piece.size(), MSG_DONTWAIT);
      size_t got = n > 0 ? static_cast<size_t>(n) : 0;
      if (got > kBytes - ways[i].received || memcmp(piece.data(), ways[i].content + ways[i].received, got) != 0) wrong++;
      ways[i].received += got;
      if (n > 0) continue;
      look[i].fd = -1;  // its end
      open--;
    }
  }
  sending.join();
  CHECK(open == 0);
  CHECK(wrong == 0);
  for (const Way& way : ways) {
    CHECK(way.received == kBytes);
    CHECK(soon([&] { return run.line_bytes(way.from) == 0; }));
  }
  CHECK(soon([&] { return run.descriptors() == idle; }));
  run.close_input();
  CHECK(run.ended() == 0);
}
