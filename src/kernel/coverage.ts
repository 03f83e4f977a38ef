/**
 * Coverage: whose bytes the interceptor carried and whose it did not, by program, from what the kernel saw of every
 * socket and what the interceptor says it did. The rows add up to the kernel's bytes exactly; what both say of one
 * flow and cannot both be true is a note. Pure: what is known goes in, rows come out.
 */

import { formatCount } from "../report/format.js";
import type { Accounts, CoverageRow } from "../report/schema.js";
import type { FlowAccount, ProcessAccount } from "../segment/index.js";
import type { KernelFlow, KernelSummary } from "./words.js";

type Pair = FlowAccount["called"];
/** What the interceptor says of the bytes of some flows. */
type Account = Pick<FlowAccount, "called" | "adjusted" | "held">;

/** What is known at the end of a run. */
export interface Known {
  readonly flows: readonly KernelFlow[];
  readonly older: KernelSummary["older"];
  readonly accounts: readonly FlowAccount[];
  /** The same a moment before the kernel was asked, for flows that go on: what the kernel said lies between. */
  readonly earlier?: readonly FlowAccount[];
  /** Of flows that have no row of their own any more, by process. */
  readonly folded: readonly ProcessAccount[];
  /** Whether sockets closed that nothing is known of: then what was claimed and not seen may be theirs. */
  readonly lost: boolean;
  /** A program's name for people, from its process and the name of its thread. */
  programOf(flow: Pick<KernelFlow, "pid" | "program"> & { readonly process?: bigint }): string;
  /** Whether a process has the interceptor in it. */
  carries(process: bigint): boolean;
}

/** What came of it. */
export interface Coverage {
  readonly rows: readonly CoverageRow[];
  /** Flows that were not carried, or not all of them. */
  readonly escaped: readonly KernelFlow[];
  /** Flows of which interceptor and kernel say different things, in words. */
  readonly disagreements: readonly string[];
}

const DNS_PORT = ":53";
/** An end that no address was given. */
const NOWHERE = ":0";

/** Adds everything up. */
export function buildCoverage(known: Known): Coverage {
  const table = new Table();
  const pools = new Pools();
  const escaped: KernelFlow[] = [];
  const disagreements: string[] = [];
  const earlier = new Map((known.earlier ?? []).map((account) => [account.cookie, account]));
  const accounts = new Map(known.accounts.map((account) => [account.cookie, account]));
  for (const flow of known.flows) {
    const moved: Pair = [flow.bytes_up, flow.bytes_down];
    const whose = { pid: flow.pid, program: known.programOf(flow) };
    const account = accounts.get(flow.cookie);
    accounts.delete(flow.cookie);
    if (account !== undefined) {
      const split = settle(moved, account, earlier.get(flow.cookie));
      // What a connection of the relay's moved is the relay's: at a reset it may leave some unread.
      table.add(whose, flow.relayed ? "relayed" : "intercepted", 1, isRelays(flow) ? moved : split.intercepted);
      if (!isRelays(flow) && sum(split.beyond) > 0) {
        table.add(whose, "escaped", 1, split.beyond);
        escaped.push(flow);
      }
      // What the relay handed to a socket, its program may leave unread.
      const short = describeShort(flow.relayed ? [split.short[0], 0] : split.short);
      if (short !== undefined) {
        disagreements.push(`the flow of ${whose.program} (pid ${flow.pid}) with ${flow.peer} claimed ${short}`);
      }
    } else if (isRelays(flow)) {
      table.add(whose, "relayed", 1, moved); // its row in the segment is another's by now
      pools.allow(flow.pid, moved);
    } else if (flow.claimed && flow.role !== "listener") {
      pools.see(whose, 1, moved);
    } else if (isResolver(flow) && known.carries(flow.process)) {
      table.add(whose, "intercepted", 1, moved);
    } else if (sum(moved) > 0 || (isConversation(flow) && !isQuestion(flow))) {
      table.add(whose, "escaped", 1, moved);
      escaped.push(flow);
    }
  }
  for (const each of known.older) {
    const whose = { pid: each.pid, program: known.programOf(each) };
    const moved: Pair = [each.bytes_up, each.bytes_down];
    if (each.claimed) pools.see(whose, each.flows, moved);
    else table.add(whose, each.relayed ? "relayed" : "escaped", each.flows, moved);
    if (each.relayed) pools.allow(each.pid, moved);
  }
  for (const account of [...known.folded.map(holdingNothing), ...accounts.values()]) pools.claim(account);
  const unseen = pools.settle(table);
  if (!known.lost) disagreements.push(...unseen);
  return { rows: table.rows(), escaped, disagreements };
}

/** Where the resolver of libc asks: its faults are applied where names are asked for, not on its own sockets. */
function isResolver({ peer }: KernelFlow): boolean {
  return peer.endsWith(DNS_PORT);
}

/** Without a byte: a listener, or a socket that was never used, is no flow. Nor is what nobody accepted. */
function isConversation({ role, peer }: KernelFlow): boolean {
  return (role === "connector" || role === "datagram") && !peer.endsWith(NOWHERE);
}

/** Whether all that it moved went through the relay; of a datagram socket, some may have gone direct. */
function isRelays({ relayed, protocol }: KernelFlow): boolean {
  return relayed && protocol === "tcp";
}

/** A datagram socket that was connected to ask the kernel for its address, and that the relay has therefore seen nothing of. */
function isQuestion({ role, relayed }: KernelFlow): boolean {
  return role === "datagram" && relayed;
}

interface Split {
  readonly intercepted: Pair;
  /** What the kernel saw and the interceptor did not. */
  readonly beyond: Pair;
  /** What the interceptor claimed and the kernel did not see. */
  readonly short: Pair;
}

/** The kernel's bytes, by what the interceptor's account explains. */
function settle(kernel: Pair, account: Account, before: Account = account): Split {
  const [first, last] = [expected(before), expected(account)];
  const split = ([0, 1] as const).map((direction) => {
    const low = Math.max(0, Math.min(first[direction], last[direction]));
    const high = Math.max(0, first[direction], last[direction]);
    const intercepted = Math.min(kernel[direction], high);
    return { intercepted, beyond: kernel[direction] - intercepted, short: Math.max(0, low - kernel[direction]) };
  });
  const pair = (of: keyof Split): Pair => [split[0]?.[of] ?? 0, split[1]?.[of] ?? 0];
  return { intercepted: pair("intercepted"), beyond: pair("beyond"), short: pair("short") };
}

/** A flow lets go of its row only when nothing of it is held any more. */
function holdingNothing(account: ProcessAccount): ProcessAccount & Account {
  return { ...account, held: [0, 0] };
}

/** What the kernel should have seen. */
function expected({ called, adjusted, held }: Account): Pair {
  return [called[0] + adjusted[0] - held[0], called[1] - adjusted[1] + held[1]];
}

function describeShort([up, down]: Pair): string | undefined {
  const ways = [up > 0 ? `${formatCount(up)} bytes up` : "", down > 0 ? `${formatCount(down)} bytes down` : ""];
  const words = ways.filter((way) => way !== "").join(" and ");
  return words === "" ? undefined : `${words} more than the kernel saw`;
}

interface Whose {
  readonly pid: number;
  readonly program: string;
}

interface Pool {
  readonly seen: Map<string, { flows: number; moved: Pair }>;
  claimed: Pair;
  allowed: Pair;
}

/** Claimed flows that have no account of their own, and accounts that have no flow of their own: by process, together. */
class Pools {
  readonly #pools = new Map<number, Pool>();

  see({ pid, program }: Whose, flows: number, moved: Pair): void {
    const { seen } = this.#of(pid);
    const before = seen.get(program) ?? { flows: 0, moved: [0, 0] };
    seen.set(program, { flows: before.flows + flows, moved: plus(before.moved, moved) });
  }

  claim(account: Account & { readonly pid: number }): void {
    const pool = this.#of(account.pid);
    pool.claimed = plus(pool.claimed, expected(account));
  }

  /** Bytes of relayed flows whose accounts may be among the claimed. */
  allow(pid: number, moved: Pair): void {
    const pool = this.#of(pid);
    pool.allowed = plus(pool.allowed, moved);
  }

  /** Into the table; answers what does not add up. */
  settle(table: Table): string[] {
    return [...this.#pools].flatMap(([pid, { seen, claimed, allowed }]) => {
      let left: Account = { called: claimed, adjusted: [0, 0], held: [0, 0] };
      for (const [program, { flows, moved }] of seen) {
        const { intercepted, beyond } = settle(moved, left);
        table.add({ pid, program }, "intercepted", flows, intercepted);
        if (sum(beyond) > 0) table.add({ pid, program }, "escaped", 1, beyond);
        left = { ...left, called: [left.called[0] - intercepted[0], left.called[1] - intercepted[1]] };
      }
      const short = describeShort([Math.max(0, left.called[0] - allowed[0]), Math.max(0, left.called[1] - allowed[1])]);
      if (short === undefined) return [];
      const [program = "a program"] = seen.keys();
      return [`flows of ${program} (pid ${pid}) claimed ${short}`];
    });
  }

  #of(pid: number): Pool {
    const pool = this.#pools.get(pid) ?? { seen: new Map(), claimed: [0, 0], allowed: [0, 0] };
    this.#pools.set(pid, pool);
    return pool;
  }
}

/** Rows by program and state. */
class Table {
  readonly #rows = new Map<string, CoverageRow>();

  add({ pid, program }: Whose, state: CoverageRow["state"], flows: number, [up, down]: Pair): void {
    const key = `${pid} ${state} ${program}`;
    const row = this.#rows.get(key) ?? { program, pid, state, flows: 0, bytes_up: 0, bytes_down: 0 };
    row.flows += flows;
    row.bytes_up += up;
    row.bytes_down += down;
    this.#rows.set(key, row);
  }

  /** Those that moved most first. */
  rows(): CoverageRow[] {
    const moved = (row: CoverageRow): number => row.bytes_up + row.bytes_down;
    return [...this.#rows.values()].sort(
      (a, b) =>
        moved(b) - moved(a) || a.pid - b.pid || a.program.localeCompare(b.program) || a.state.localeCompare(b.state),
    );
  }
}

/** What a policy's faults did to bytes, by direction. */
export type Adjustments = Pick<Accounts, "dropped" | "cut" | "injected" | "duplicated">;

/**
 * The sums of both sides, for one direction: what programs called, what faults made of it, and what the kernel saw of
 * the flows that the interceptor carried.
 */
export function addUp(known: Known, direction: 0 | 1, adjustments: Adjustments): Accounts {
  const accounts = [...known.accounts, ...known.folded.map(holdingNothing)];
  const total = (of: (account: Account) => Pair): number =>
    accounts.reduce((all, each) => all + of(each)[direction], 0);
  const cookies = new Set(known.accounts.map(({ cookie }) => cookie));
  const seen = [
    ...known.flows.filter(({ claimed, cookie }) => claimed || cookies.has(cookie)),
    ...known.older.filter(({ claimed }) => claimed),
  ];
  return {
    called: total(({ called }) => called),
    ...adjustments,
    held: total(({ held }) => held),
    kernel: seen.reduce((all, flow) => all + (direction === 0 ? flow.bytes_up : flow.bytes_down), 0),
  };
}

function sum([up, down]: Pair): number {
  return up + down;
}

function plus(a: Pair, b: Pair): Pair {
  return [a[0] + b[0], a[1] + b[1]];
}
