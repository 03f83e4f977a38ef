// Reading the loader's command line; see order.h.
#include "order.h"

#include <stdlib.h>

namespace mishap::loader {
namespace {

constexpr char kSegments[] = "/dev/shm/mishap-";

u32 read_ways(const std::string& word) { return word == "up" ? 1 : word == "down" ? 2 : word == "both" ? 3 : 0; }

}  // namespace

const char kUsage[] =
    "usage: mishap-loader run --segment /dev/shm/mishap-… --uid UID --gid GID --for PID [--arrivals] [--relay]\n"
    "       mishap-loader attach --segment /dev/shm/mishap-… --uid UID --gid GID --pid N | --cgroup PATH [--arrivals]\n"
    "                     [--reset] [--silent up|down|both [--silent-after BYTES]] [--pace BYTES_PER_S]\n"
    "       mishap-loader observe --pid N | --cgroup PATH | --all\n"
    "       mishap-loader probe\n";

bool read_order(int argc, char** argv, Order* order) {
  if (argc < 2) return false;
  order->mode = argv[1];
  bool scoped = false;
  for (int i = 2; i < argc; i++) {
    const std::string flag = argv[i];
    if (flag == "--arrivals") order->watch.arrivals = true;
    else if (flag == "--relay") order->watch.relay = true;
    else if (flag == "--reset") order->treatment.reset = true;
    else if (flag == "--all") order->watch.scope = Scope::All, scoped = true;
    else if (i + 1 == argc) return false;
    else if (flag == "--segment") order->segment = argv[++i];
    else if (flag == "--silent") order->treatment.silent = read_ways(argv[++i]);
    else if (flag == "--silent-after") order->treatment.silent_after = strtoull(argv[++i], nullptr, 10);
    else if (flag == "--pace") order->treatment.pace = strtoull(argv[++i], nullptr, 10);
    else if (flag == "--uid") order->uid = atoi(argv[++i]);
    else if (flag == "--gid") order->gid = atoi(argv[++i]);
    else if (flag == "--for") order->run = atoi(argv[++i]);
    else if (flag == "--pid") order->watch.scope = Scope::Process, order->watch.pid = atoi(argv[++i]), scoped = true;
    else if (flag == "--cgroup") order->cgroup = argv[++i], scoped = true;
    else return false;
  }
  if (order->mode == "probe") return argc == 2;
  if (order->mode == "observe") return scoped && (order->watch.scope != Scope::Process || order->watch.pid > 0);
  if (order->mode == "attach") order->watch.relay = true;
  order->watch.silence = order->treatment.silent != 0;
  const bool segment = order->segment.rfind(kSegments, 0) == 0 && order->segment.find('/', sizeof(kSegments)) == std::string::npos;
  const bool whole = segment && order->uid >= 0 && order->gid >= 0;
  return whole && ((order->mode == "run" && order->run > 0) || (order->mode == "attach" && scoped && order->watch.scope != Scope::All));
}

}  // namespace mishap::loader
