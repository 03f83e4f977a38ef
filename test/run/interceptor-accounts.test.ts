// Where the kernel watches, every byte is accounted for: what the calls of a program said they moved, and what the faults
// made of it, come to what its peer got and gave. Held against a peer outside, which needs no kernel's side.
import { createSocket } from "node:dgram";
import { type AddressInfo, createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { INTERCEPTOR_PATH } from "../../src/api/preload.js";
import { compile as compilePolicy, parsePolicy } from "../../src/policy/index.js";
import { type BothWays, Segment, startCourier } from "../../src/segment/index.js";
import { freshProject, scratchFolder, start } from "./cli-harness.js";
import { compile } from "./support/programs.js";

/** A peer, and what it got and gave so far. */
interface Scale {
  readonly port: number;
  got: number;
  gave: number;
}

const folder = scratchFolder();
let program: string;
let streams: Scale;
let datagrams: Scale;

const GIFT = 100_000;

/** Takes all it gets, gives GIFT bytes in pieces to everyone who says something, and ends. */
function streamScale(): Promise<Scale> {
  const scale = { port: 0, got: 0, gave: 0 };
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    socket.on("data", (data) => {
      scale.got += data.length;
    });
    socket.once("data", () => {
      for (let left = GIFT; left > 0; left -= 1777) socket.write(Buffer.alloc(Math.min(left, 1777), "0123456789"));
      scale.gave += GIFT;
      socket.end();
    });
  });
  afterAll(() => void server.close());
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () =>
      resolve(Object.assign(scale, { port: (server.address() as AddressInfo).port })),
    );
  });
}

/** Answers each datagram with one of another size. */
function datagramScale(): Promise<Scale> {
  const scale = { port: 0, got: 0, gave: 0 };
  const socket = createSocket({ type: "udp4", recvBufferSize: 4 << 20 });
  socket.on("message", (message, from) => {
    const answer = Buffer.alloc(1 + ((message.length * 31) % 1300), "0123456789");
    scale.got += message.length;
    scale.gave += answer.length;
    socket.send(answer, from.port, from.address);
  });
  afterAll(() => void socket.close());
  return new Promise((resolve) => {
    socket.bind(0, "127.0.0.1", () => resolve(Object.assign(scale, { port: socket.address().port })));
  });
}

beforeAll(async () => {
  [program, streams, datagrams] = await Promise.all([compile(folder, "bytes.c"), streamScale(), datagramScale()]);
});

/** What the program said, what its flow accounts for, and what the peer saw, uplink and downlink. */
interface Counted {
  readonly said: { up: number; down: number; sends: string; receives: string };
  readonly called: BothWays;
  /** What the kernel must have moved. */
  readonly expected: BothWays;
  readonly adjusted: BothWays;
  readonly peer: BothWays;
  /** Dropped, cut, injected, duplicated: each uplink, downlink. */
  readonly reasons: readonly number[];
}

/** What was sent is on its way through the peer's event loop: until nothing more has come for a while. */
async function quiet(scale: Scale): Promise<void> {
  for (let seen = -1; seen !== scale.got + scale.gave; ) {
    seen = scale.got + scale.gave;
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
}

async function count(kind: "tcp" | "udp", policy: object | undefined, ...more: string[]): Promise<Counted> {
  const segment = Segment.create({ project: freshProject(), seed: 7n, kernel: true });
  const courier = startCourier(segment.path);
  try {
    await courier.ready;
    if (policy !== undefined) {
      const { row, targets } = compilePolicy("faults", parsePolicy(policy), { runSeed: 7n });
      segment.publish(
        0,
        { ...row },
        targets.map((target) => ({ ...target })),
      );
    }
    segment.activate(policy === undefined ? -1 : 0);
    const scale = kind === "tcp" ? streams : datagrams;
    const before = { ...scale };
    const env = { LD_PRELOAD: INTERCEPTOR_PATH, MISHAP_SEGMENT: segment.path };
    const end = await start(program, [kind, String(scale.port), ...more], { env }).finished;
    expect(end).toMatchObject({ code: 0, stderr: "" });
    await courier.drained();
    await quiet(scale);
    const { flows, processes } = segment.accounts();
    expect(flows).toHaveLength(1);
    expect(processes).toEqual([]);
    const [{ called, adjusted, held } = { called: [0, 0], adjusted: [0, 0], held: [0, 0] }] = flows;
    const reasons = segment.stats(0).accounts;
    return {
      said: JSON.parse(end.stdout),
      called: [called[0], called[1]],
      expected: [called[0] + (adjusted[0] ?? 0) - (held[0] ?? 0), called[1] - (adjusted[1] ?? 0) + (held[1] ?? 0)],
      adjusted: [adjusted[0] ?? 0, adjusted[1] ?? 0],
      peer: [scale.got - before.got, scale.gave - before.gave],
      reasons: Array.isArray(reasons) ? reasons.map(Number) : [],
    };
  } finally {
    courier.dismiss();
    segment.close({ unlink: true });
  }
}

/**
 * Everything adds up: calls to accounts, and those to what the peer saw.
 *
 * @param unanswered - whether what was held until the program's end may have been answered to nobody
 */
function expectBalance({ said, called, expected, adjusted, peer, reasons }: Counted, unanswered = false): void {
  expect(called).toEqual([said.up, said.down]);
  if (said.sends === "") expect(expected[0]).toBe(peer[0]);
  else expect(expected[0]).toBeGreaterThanOrEqual(peer[0]); // a reset takes with it what the peer has not read yet
  const tookAll = said.sends === "" && (said.receives === "" || said.receives === "EAGAIN");
  if (tookAll && unanswered) expect(expected[1]).toBeLessThanOrEqual(peer[1]);
  else if (tookAll) expect(expected[1]).toBe(peer[1]);
  const sum = (d: number): number => {
    const [dropped = 0, cut = 0, injected = 0, duplicated = 0] = [0, 2, 4, 6].map((at) => reasons[at + d] ?? 0);
    return injected + duplicated - dropped - cut;
  };
  expect([sum(0), sum(1)]).toEqual(adjusted);
}

const mutation = (type: string, fields: object = {}): object => ({
  payload_mutation: { type, prob: "50%", ...fields },
});
const DROP = { packet_loss: "20%", loss_mode: "drop" };
const TWICE = { packet_duplicate: { prob: "30%", max_extra: 2 } };
const REORDER = { packet_reorder: { prob: "30%", window: 2, max_delay: "30ms" } };
const LATE = { latency: "5ms" };
const FAULTS: Record<string, object> = {
  latency: LATE,
  "a latency shorter than the courier's": { latency: "20us" },
  rate: { rate: "80mbps" },
  "loss, dropped": DROP,
  duplicates: TWICE,
  reordering: REORDER,
  "reordering without end": { packet_reorder: { prob: "30%", window: 1000 } },
  truncation: mutation("truncate", { truncate_size: "100b" }),
  corruption: mutation("corrupt_bytes"),
  injection: mutation("inject_bytes", { inject_data: "noise" }),
  "a longer replacement": mutation("replace_pattern", { replace_find: "abc", replace_with: "abcdefgh" }),
  "a shorter replacement": mutation("replace_pattern", { replace_find: "defgh", replace_with: "" }),
  "swapped bytes": mutation("swap_bytes", { swap_pos1: 0, swap_pos2: 1 }),
  "a spent budget": { session_budget: { max_tx: "20kb", max_rx: "30kb" } },
  "all of it at once": { ...DROP, ...TWICE, ...REORDER, ...mutation("inject_bytes", { inject_data: "noise" }) },
  "all of it, later": { ...LATE, ...DROP, ...TWICE, ...REORDER, ...mutation("truncate", { truncate_size: "99b" }) },
  "a schedule that ends them": { ...DROP, schedule: { kind: "spike", every: "20ms", duration: "10ms" } },
};
const ADJUSTING = /drop|dupl|trunc|inject|replacement|budget|all/;

describe("the accounts of a stream", () => {
  it("hold what calls said where nothing is asked", async () => {
    const counted = await count("tcp", undefined);
    expectBalance(counted);
    expect(counted.adjusted).toEqual([0, 0]);
    expect(counted.peer[1]).toBe(GIFT);
  });

  it.each(Object.keys(FAULTS))("add up under %s", async (name) => {
    const counted = await count("tcp", FAULTS[name]);
    expect(counted.said).toMatchObject({ sends: "", receives: "" });
    expectBalance(counted);
    if (ADJUSTING.test(name)) expect(counted.adjusted).not.toEqual([0, 0]);
  });

  it.each([
    ["a reset", { connection_error: { kind: "reset", prob: "5%" } }],
    ["a half-open end", { half_open: { after: "20kb", error: "reset" } }],
    ["a budget that ends in an error", { session_budget: { max_tx: "20kb", action: "connection_error" } }],
    [
      "a budget that ends in a timeout",
      { session_budget: { max_tx: "20kb", action: "timeout", budget_timeout: "50ms" } },
    ],
  ])("add up when it breaks by %s", async (_, policy) => {
    const counted = await count("tcp", policy, "calls");
    expect(counted.said.sends + counted.said.receives).not.toBe("");
    expectBalance(counted);
  });

  it("count what a reset left on the line as cut", async () => {
    const policy = { ...TWICE, uplink: { latency: "1s" }, half_open: { after: "20kb", error: "reset" } };
    const counted = await count("tcp", policy, "calls");
    expect(counted.said).toMatchObject({ up: 20_000, sends: "ECONNRESET" });
    expect(counted.expected[0]).toBe(0); // nothing of it was due yet
  });
});

describe("the accounts of datagrams", () => {
  it("hold what calls said where nothing is asked", async () => {
    const counted = await count("udp", undefined);
    expectBalance(counted);
    expect(counted.adjusted).toEqual([0, 0]);
  });

  it.each(Object.keys(FAULTS).filter((name) => !name.includes("without end")))("add up under %s", async (name) => {
    const counted = await count("udp", FAULTS[name]);
    expect(counted.said).toMatchObject({ sends: "", receives: "EAGAIN" });
    expectBalance(counted, "packet_reorder" in (FAULTS[name] ?? {}));
  });
});
