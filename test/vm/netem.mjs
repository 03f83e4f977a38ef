// A link of 20 ms each way, three ways: the kernel's netem on both ends of a cable between two network namespaces, mishap's
// interceptor, and mishap's relay, both of the latter over the same cable without netem. The same client and server, test/bench/relay.c.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { BARE, under } from "../bench/yardstick.mjs";

const DELAY = "20ms";
const TRIPS = 100;
const PAUSE_US = 500;
const MEGABYTES = 20;
const ROUNDS = 3;
const SERVER = "10.77.0.2";

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

function run(command, timeout = 600_000) {
  const [name, ...args] = command;
  const { status, stdout, stderr, error } = spawnSync(name, args, { encoding: "utf8", timeout });
  if (status !== 0) throw new Error(`${command.join(" ")} ended with ${status}: ${error?.message ?? stderr}`);
  return stdout;
}
const sh = (line) => run(["sh", "-c", `set -e; ${line}`]);
// Not `ip netns exec`, which hides the cgroups.
const FAR = ["nsenter", "--net=/run/netns/far"];

const NETEM = {
  // More than is ever under way: netem's own limit of 1,000 packets would drop some.
  on: () =>
    sh(`tc qdisc add dev near root netem delay ${DELAY} limit 100000
                ${FAR.join(" ")} tc qdisc add dev far root netem delay ${DELAY} limit 100000`),
  off: () => sh(`tc qdisc del dev near root; ${FAR.join(" ")} tc qdisc del dev far root`),
};
const NOTHING = { on() {}, off() {} };
const WAYS = [
  { name: "nothing", prefix: BARE, cable: NOTHING },
  { name: `netem, ${DELAY} each way`, prefix: BARE, cable: NETEM },
  { name: `mishap's interceptor, ${DELAY} each way`, prefix: under("--latency", DELAY), cable: NOTHING },
  {
    name: `mishap's relay, ${DELAY} each way`,
    prefix: under("--kernel", "--executor", "relay", "--latency", DELAY),
    cable: NOTHING,
  },
];

/** The table's rows: way, round trips' median and 99th percentile in ms, and seconds for the bulk. `program` is relay.c, compiled. */
export async function compare(program) {
  sh(`ip netns add far
      ip link add near type veth peer name far netns far
      ip address add 10.77.0.1/24 dev near && ip link set near up
      ${FAR.join(" ")} ip address add ${SERVER}/24 dev far && ${FAR.join(" ")} ip link set far up`);
  const server = spawn(FAR[0], [...FAR.slice(1), program, "serve", SERVER], { stdio: ["pipe", "pipe", "inherit"] });
  try {
    const [port] = await once(server.stdout, "data");
    const client = (prefix, ...args) =>
      JSON.parse(run([...prefix, program, args[0], `${SERVER}:${Number(port)}`, ...args.slice(1).map(String)]));
    const rounds = WAYS.map(() => []);
    for (let i = 0; i < ROUNDS * WAYS.length; i++) {
      const { name, prefix, cable } = WAYS[i % WAYS.length];
      cable.on();
      try {
        const round = { ...client(prefix, "rtt", TRIPS, PAUSE_US), ...client(prefix, "bulk", MEGABYTES) };
        console.log(`${name}: ${JSON.stringify(round)}`);
        rounds[i % WAYS.length].push(round);
      } finally {
        cable.off();
      }
    }
    return WAYS.map(({ name }, at) => {
      const of = (field) => median(rounds[at].map((round) => round[field]));
      const bulk_s = (MEGABYTES * 1e6) / of("bytes_per_second");
      return { name, p50_ms: of("p50_us") / 1000, p99_ms: of("p99_us") / 1000, bulk_s };
    });
  } finally {
    server.stdin.end();
    server.kill();
    sh("ip netns del far");
  }
}

/** What the rows say as a Markdown table. */
export function tableOf(rows) {
  const lines = rows.map(
    ({ name, p50_ms, p99_ms, bulk_s }) =>
      `| ${name} | ${p50_ms.toFixed(1)} ms | ${p99_ms.toFixed(1)} ms | ${bulk_s.toFixed(2)} s |`,
  );
  const head = `| delayed by | round trip, median | p99 | ${MEGABYTES} MB one way |\n|---|---|---|---|`;
  return [head, ...lines].join("\n");
}
