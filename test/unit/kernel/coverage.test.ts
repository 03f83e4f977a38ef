// Coverage: the rows add up to the kernel's bytes whatever both sides say, and what cannot both be true is said.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { addUp, buildCoverage, type Known } from "../../../src/kernel/coverage.js";
import type { KernelFlow } from "../../../src/kernel/words.js";

function flow(changes: Partial<KernelFlow> = {}): KernelFlow {
  return {
    cookie: 1n,
    pid: 812,
    tid: 812,
    process: 812n << 32n,
    program: "curl",
    role: "connector",
    protocol: "tcp",
    open: false,
    state: "CLOSE",
    local: "127.0.0.1:40000",
    peer: "10.0.0.7:443",
    claimed: false,
    relayed: false,
    policy: -1,
    reset: false,
    created_ns: 0n,
    bytes_up: 0,
    bytes_down: 0,
    ops_up: 0,
    ops_down: 0,
    rtt_us: 0,
    retransmits: 0,
    resets: 0,
    failures: 0,
    ...changes,
  };
}

function account(changes: Partial<Known["accounts"][number]> = {}): Known["accounts"][number] {
  return { cookie: 1n, pid: 812, policy: 0, called: [0, 0], adjusted: [0, 0], held: [0, 0], ...changes };
}

function known(changes: Partial<Known>): Known {
  return {
    flows: [],
    older: [],
    accounts: [],
    folded: [],
    lost: false,
    programOf: ({ program }) => program,
    carries: () => false,
    ...changes,
  };
}

const row = (state: string, flows: number, bytes_up: number, bytes_down: number) => {
  return { program: "curl", pid: 812, state, flows, bytes_up, bytes_down };
};

describe("a flow", () => {
  it("that was handed to the relay is relayed, where that accounts for it", () => {
    const flows = [flow({ relayed: true, bytes_up: 100, bytes_down: 2000 })];
    const { rows, escaped } = buildCoverage(known({ flows, accounts: [account({ called: [100, 2000] })] }));
    expect(rows).toEqual([row("relayed", 1, 100, 2000)]);
    expect(escaped).toEqual([]);
  });

  it("that was handed to the relay stays relayed with bytes that it never read, and without its account", () => {
    const flows = [
      flow({ cookie: 1n, relayed: true, bytes_up: 100 }),
      flow({ cookie: 2n, relayed: true, bytes_up: 7 }),
    ];
    const older = [{ pid: 812, program: "curl", claimed: false, relayed: true, flows: 3, bytes_up: 30, bytes_down: 0 }];
    const { rows, escaped } = buildCoverage(known({ flows, older, accounts: [account({ called: [60, 0] })] }));
    expect(rows).toEqual([row("relayed", 5, 137, 0)]);
    expect(escaped).toEqual([]);
  });

  it("that the interceptor accounts for is intercepted", () => {
    const flows = [flow({ claimed: true, bytes_up: 100, bytes_down: 2000 })];
    const { rows, escaped, disagreements } = buildCoverage(
      known({ flows, accounts: [account({ called: [100, 2000] })] }),
    );
    expect(rows).toEqual([row("intercepted", 1, 100, 2000)]);
    expect([escaped, disagreements]).toEqual([[], []]);
  });

  it("is accounted for with what faults took, added and hold back", () => {
    const flows = [flow({ claimed: true, bytes_up: 1000 + 50 - 7, bytes_down: 1000 - 50 + 7 })];
    const accounts = [account({ called: [1000, 1000], adjusted: [50, 50], held: [7, 7] })];
    const { rows, disagreements } = buildCoverage(known({ flows, accounts }));
    expect(rows).toEqual([row("intercepted", 1, 1043, 957)]);
    expect(disagreements).toEqual([]);
  });

  it("that nobody claimed has escaped, and is listed", () => {
    const flows = [flow({ bytes_up: 5 })];
    const { rows, escaped } = buildCoverage(known({ flows }));
    expect(rows).toEqual([row("escaped", 1, 5, 0)]);
    expect(escaped).toEqual(flows);
  });

  it("of which the interceptor knows a part is counted in both, and listed", () => {
    const flows = [flow({ claimed: true, bytes_up: 100, bytes_down: 30 })];
    const { rows, escaped } = buildCoverage(known({ flows, accounts: [account({ called: [60, 30] })] }));
    expect(rows).toEqual([row("intercepted", 1, 60, 30), row("escaped", 1, 40, 0)]);
    expect(escaped).toEqual(flows);
  });

  it("of which the interceptor claims more than the kernel saw is a disagreement", () => {
    const flows = [flow({ claimed: true, bytes_up: 1000 })];
    const { rows, disagreements } = buildCoverage(known({ flows, accounts: [account({ called: [2000, 5] })] }));
    expect(rows).toEqual([row("intercepted", 1, 1000, 0)]);
    expect(disagreements).toEqual([
      "the flow of curl (pid 812) with 10.0.0.7:443 claimed 1,000 bytes up and 5 bytes down more than the kernel saw",
    ]);
  });

  it("that goes on is not held to a single moment", () => {
    const flows = [flow({ claimed: true, open: true, bytes_up: 150 })];
    const both = { earlier: [account({ called: [100, 0] })], accounts: [account({ called: [200, 0] })] };
    const { rows, disagreements } = buildCoverage(known({ flows, ...both }));
    expect(rows).toEqual([row("intercepted", 1, 150, 0)]);
    expect(disagreements).toEqual([]);
  });
});

describe("without a byte", () => {
  it.each([
    ["a connection that was tried counts", flow(), 1],
    ["a listener does not", flow({ role: "listener", peer: "[::]:0" }), 0],
    ["a socket that was never used does not", flow({ peer: "0.0.0.0:0" }), 0],
    ["a connection that nobody accepted does not", flow({ role: "acceptor" }), 0],
  ])("%s", (_, only, rows) => {
    expect(buildCoverage(known({ flows: [only] })).rows).toHaveLength(rows);
  });
});

it("the resolver of a process with the interceptor is intercepted, of another it is not", () => {
  const flows = [flow({ protocol: "udp", role: "datagram", peer: "127.0.0.53:53", bytes_up: 40, bytes_down: 80 })];
  expect(buildCoverage(known({ flows, carries: () => true })).rows).toEqual([row("intercepted", 1, 40, 80)]);
  expect(buildCoverage(known({ flows })).rows).toEqual([row("escaped", 1, 40, 80)]);
});

describe("flows that have no account of their own", () => {
  const older = [{ pid: 812, program: "curl", claimed: true, relayed: false, flows: 9, bytes_up: 900, bytes_down: 90 }];
  const folded = [{ pid: 812, flows: 10, called: [900, 95] as [number, number], adjusted: [0, 0] as [number, number] }];

  it("are held to what their process accounts for", () => {
    const flows = [flow({ claimed: true, bytes_up: 3, bytes_down: 5 })];
    expect(buildCoverage(known({ flows, older, folded })).rows).toEqual([
      row("intercepted", 10, 900, 95),
      row("escaped", 1, 3, 0),
    ]);
  });

  it("disagree where the process claims more, unless closes went unheard", () => {
    expect(buildCoverage(known({ older, folded })).disagreements).toEqual([
      "flows of curl (pid 812) claimed 5 bytes down more than the kernel saw",
    ]);
    expect(buildCoverage(known({ older, folded, lost: true })).disagreements).toEqual([]);
  });
});

const bytes = fc.nat({ max: 1 << 20 });
const pair = fc.tuple(bytes, bytes);
const signed = fc.tuple(fc.integer({ min: -1000, max: 1000 }), fc.integer({ min: -1000, max: 1000 }));
const anyFlow = fc.record({
  cookie: fc.bigInt({ min: 1n, max: 40n }),
  pid: fc.integer({ min: 2, max: 5 }),
  program: fc.constantFrom("curl", "go", "python3"),
  role: fc.constantFrom("connector", "acceptor", "datagram", "listener"),
  peer: fc.constantFrom("10.0.0.7:443", "127.0.0.53:53", "0.0.0.0:0"),
  claimed: fc.boolean(),
  relayed: fc.boolean(),
  bytes_up: fc.oneof(fc.constant(0), bytes),
  bytes_down: fc.oneof(fc.constant(0), bytes),
});
const anyAccount = fc.record({
  cookie: fc.bigInt({ min: 1n, max: 60n }),
  pid: fc.integer({ min: 2, max: 5 }),
  called: pair,
  adjusted: signed,
  held: pair,
});

it("the rows add up to the kernel's bytes exactly, whatever was said", () => {
  const byCookie = <Each extends { cookie: bigint }>(each: fc.Arbitrary<Each>) =>
    fc.uniqueArray(each, { selector: ({ cookie }) => cookie, maxLength: 30 });
  const anyOlder = fc.record({
    pid: fc.integer({ min: 2, max: 5 }),
    program: fc.constantFrom("curl", "go"),
    claimed: fc.boolean(),
    relayed: fc.boolean(),
    flows: fc.integer({ min: 1, max: 9 }),
    bytes_up: bytes,
    bytes_down: bytes,
  });
  const anyFolded = fc.record({
    pid: fc.integer({ min: 2, max: 5 }),
    flows: fc.nat({ max: 9 }),
    called: pair,
    adjusted: signed,
  });
  fc.assert(
    fc.property(
      byCookie(anyFlow),
      byCookie(anyAccount),
      byCookie(anyAccount),
      fc.array(anyOlder, { maxLength: 5 }),
      fc.array(anyFolded, { maxLength: 5 }),
      (flows, accounts, earlier, older, folded) => {
        const { rows } = buildCoverage(
          known({
            flows: flows.map((each) => flow(each)),
            accounts: accounts.map((each) => account(each)),
            earlier: earlier.map((each) => account(each)),
            older,
            folded,
            carries: (process) => process % 2n === 0n,
          }),
        );
        for (const side of ["bytes_up", "bytes_down"] as const) {
          const seen = [...flows, ...older].reduce((sum, each) => sum + each[side], 0);
          expect(rows.reduce((sum, each) => sum + each[side], 0)).toBe(seen);
        }
        for (const each of rows) {
          expect(Math.min(each.flows - 1, each.bytes_up, each.bytes_down)).toBeGreaterThanOrEqual(0);
        }
        expect(new Set(rows.map(({ pid, program, state }) => `${pid} ${program} ${state}`)).size).toBe(rows.length);
      },
    ),
    { numRuns: 2000 },
  );
});

it("both sides' sums of a direction stand beside each other", () => {
  const flows = [flow({ claimed: true, bytes_up: 950 }), flow({ cookie: 2n, bytes_up: 77 })];
  const adjusted = { dropped: 60, cut: 0, injected: 0, duplicated: 20 };
  const accounts = [account({ called: [1000, 0], adjusted: [-40, 0], held: [10, 0] })];
  expect(addUp(known({ flows, accounts }), 0, adjusted)).toEqual({ called: 1000, ...adjusted, held: 10, kernel: 950 });
});
