/**
 * A worker at its lane of the mailbox: takes what programs ask, has the script answer, and answers with rows of the mailbox's
 * table, which are policies in the contract's form. One long task, which lets the script's timers, and other tasks, run between.
 */

import { setImmediate } from "node:timers/promises";
import { compile, type PolicyInput, parsePolicy } from "../../policy/index.js";
import { codec, layout, type NativeMailbox, nameOf, native, numberOf } from "../../segment/index.js";
import type { Peer, ValidFor } from "../index.js";
import { type Asked, type FlowFacts, flowFactsOf, type OpFacts, type Reply } from "../questions.js";
import { answerOf } from "./answers.js";
import { knownFlow, learnFlow } from "./flows.js";
import type { Newsletter } from "./news.js";

/** How long the worker blocks for the next question. Others may have tasks for it, and the script timers. */
const WAIT_MS = 20;
/** How long it answers before it lets others run. */
const BURST_MS = 10;
/** Rows for answers that stand beyond their op, behind those that do not. */
const FIRST_LASTING_ROW = 1024;
const GIVEN = 8;
const WARM_UPS = 8;

const OP_KINDS = ["connect", "send", "recv", "dns"] as const satisfies OpFacts["kind"][];
const STANDING = {
  op: numberOf("Standing", "op"),
  units: numberOf("Standing", "units"),
  ms: numberOf("Standing", "ms"),
  flow: numberOf("Standing", "flow"),
};
const ABOUT_FLOW = numberOf("Asking", "flow");
const UPLINK = numberOf("Direction", "uplink");

/** A lane of so many, the run's seed, and whether answers are told. */
export interface LaneOptions {
  readonly lane: number;
  readonly lanes: number;
  readonly seed: string;
  readonly recorded: boolean;
}

/** Answers questions of a lane until the worker ends. */
export async function serveLane(
  options: LaneOptions,
  ask: (question: Asked) => Reply,
  newsletter: Newsletter,
): Promise<never> {
  const { lane } = options;
  const mailbox = new native.Mailbox();
  const rows = new AnswerRows(mailbox, options, newsletter);
  const given = new Float64Array(GIVEN);
  warmUp(rows);
  newsletter.take(); // those were no answers
  newsletter.send(); // it serves
  for (;;) {
    const untilMs = performance.now() + BURST_MS;
    while (mailbox.next(lane, WAIT_MS, given)) {
      // By index: this is asked a hundred thousand times a second.
      const asking = given[0] ?? 0;
      const op = given[1] ?? 0;
      const direction = given[2] ?? 0;
      const key = given[3] ?? 0;
      const atMs = given[4] ?? 0;
      const unit = given[5] ?? 0;
      const bytes = given[6] ?? 0;
      const named = given[7] ?? 0;
      let flow = knownFlow(key);
      if (flow === undefined || (named !== 0 && flow.peer.sni === undefined)) {
        flow = factsOf(mailbox.question(), flow?.openedAtMs ?? atMs);
        const forgotten = learnFlow(key, flow);
        if (forgotten !== undefined) ask({ kind: "closed", atMs, flow: forgotten });
      }
      const reply = ask(
        asking === ABOUT_FLOW
          ? { kind: "flow", atMs, flow }
          : { kind: "op", atMs, flow, op: opFacts(op, direction, unit, bytes, flow.peer) },
      );
      const { fields, validFor = "op" } = reply.answer;
      const row = fields === undefined ? OWN_FIELDS : rows.rowOf(fields, asking === ABOUT_FLOW || validFor !== "op");
      const standing = asking === ABOUT_FLOW ? STANDING.flow : standingOf(validFor);
      mailbox.answer(lane, row.index, row.generation, standing, amountOf(validFor));
      newsletter.add(reply);
      if (performance.now() > untilMs) break;
    }
    newsletter.sendSometimes();
    await setImmediate();
  }
}

/** What runs for the first time takes milliseconds, which is more than the first program would wait. */
function warmUp(rows: AnswerRows): void {
  codec.decode("ScriptQuestion", new Uint8Array(codec.struct("ScriptQuestion").size));
  for (let i = 0; i < WARM_UPS; i++) {
    const { fields } = answerOf("onOp", { latency: `${1 + i}ms`, rate: "1gbps" });
    if (fields !== undefined) rows.rowOf(fields, i % 2 === 0);
  }
}

function opFacts(op: number, direction: number, unit: number, bytes: number, { host }: Peer): OpFacts {
  const kind = OP_KINDS[op] ?? "send";
  const lookup = kind === "dns" && host !== undefined ? { host } : {};
  return { kind, direction: direction === UPLINK ? "uplink" : "downlink", bytes, unit, ...lookup };
}

function standingOf(validFor: ValidFor): number {
  if (typeof validFor === "string") return STANDING[validFor];
  return "units" in validFor ? STANDING.units : STANDING.ms;
}

function amountOf(validFor: ValidFor): number {
  if (typeof validFor === "string") return 0;
  return "units" in validFor ? validFor.units : validFor.ms;
}

/** A row of the table, and which of the answers that it held it is. */
interface AnswerRow {
  readonly index: number;
  readonly generation: number;
}

const OWN_FIELDS: AnswerRow = { index: 0, generation: 0 };

interface RowRange {
  readonly first: number;
  readonly end: number;
}

/** Answers in the table: each there once, the oldest given up for new ones. */
class AnswerRows {
  readonly #mailbox: NativeMailbox;
  readonly #runSeed: bigint;
  /** Where answers are told. */
  readonly #newsletter: Newsletter | undefined;
  /** By identity: answers alike are one object (answers.ts). */
  readonly #known = [new Map<PolicyInput, AnswerRow>(), new Map<PolicyInput, AnswerRow>()] as const;
  readonly #held: PolicyInput[] = [];
  /** This lane's part of the rows for answers that end with their op, and of those that do not. */
  readonly #ranges: readonly [RowRange, RowRange];
  readonly #next: number[];

  constructor(mailbox: NativeMailbox, { lane, lanes, seed, recorded }: LaneOptions, newsletter: Newsletter) {
    this.#mailbox = mailbox;
    this.#runSeed = BigInt(seed);
    this.#newsletter = recorded ? newsletter : undefined;
    const { answers = 0 } = layout.constants;
    const part = (first: number, end: number): RowRange => {
      const rows = Math.floor((end - first) / lanes);
      return { first: first + lane * rows, end: first + (lane + 1) * rows };
    };
    this.#ranges = [part(1, FIRST_LASTING_ROW), part(FIRST_LASTING_ROW, answers)];
    this.#next = this.#ranges.map(({ first }) => first);
  }

  rowOf(fields: PolicyInput, lasting: boolean): AnswerRow {
    const which = lasting ? 1 : 0;
    const known = this.#known[which];
    const found = known.get(fields);
    if (found !== undefined) return found;
    const index = this.#take(which);
    const earlier = this.#held[index];
    if (earlier !== undefined) known.delete(earlier);
    this.#held[index] = fields;
    const { row } = compile("script", parsePolicy(fields), { runSeed: this.#runSeed });
    const made = { index, generation: this.#mailbox.publish(index, codec.encode("Row", { ...row })) };
    known.set(fields, made);
    this.#newsletter?.addAnswer({ value: index + made.generation * (layout.constants.answers ?? 0), fields });
    return made;
  }

  #take(which: 0 | 1): number {
    const { first, end } = this.#ranges[which];
    const index = this.#next[which] ?? first;
    this.#next[which] = index + 1 < end ? index + 1 : first;
    return index;
  }
}

/** A flow as a question describes it. */
function factsOf(bytes: Buffer, openedAtMs: number): FlowFacts {
  const { flow, host, sni, protocol, role, peer, peer_port } = codec.decode("ScriptQuestion", bytes);
  const told = flowFactsOf(String(flow), openedAtMs);
  const [word, name] = [nameOf("Protocol", protocol), String(host)];
  const unix = word === "unix";
  const address = unix ? name : addressOf(peer);
  return {
    ...told,
    protocol: word === "udp" || unix ? word : "tcp",
    role: nameOf("Role", role) === "acceptor" ? "server" : "client",
    peer: {
      address: word === "dns" ? name : address,
      port: unix ? 0 : Number(peer_port),
      ...(name !== "" && !unix && { host: name }),
      ...(sni !== "" && { sni: String(sni) }),
    },
  };
}

/** 16 bytes of IPv6 or mapped IPv4, as people write them. */
function addressOf(peer: unknown): string {
  const bytes = peer instanceof Uint8Array ? peer : new Uint8Array(16);
  const mapped = bytes.subarray(0, 12).every((byte, at) => byte === (at < 10 ? 0 : 0xff));
  if (mapped) return bytes.subarray(12).join(".");
  const groups = Array.from({ length: 8 }, (_, at) => ((bytes[2 * at] ?? 0) << 8) | (bytes[2 * at + 1] ?? 0));
  return new URL(`http://[${groups.map((group) => group.toString(16)).join(":")}]`).hostname.slice(1, -1);
}
