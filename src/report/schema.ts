/**
 * Evidence as JSON, described once: the types that mishap builds it with, and docs/evidence.schema.json, which a test
 * holds to this file. Only the types are used at run time.
 */

import { z } from "zod";

const count = (description: string) => z.int().min(0).describe(description);

const fault = z
  .strictObject({
    policy: z
      .string()
      .describe("the policy that asked for it; absent for the one that the command line's flags made")
      .optional(),
    fault: z.string().describe("the field as the user named it, such as latency, uplink.rate or dns.nxdomain"),
    asked: z.string().describe("the value as the user wrote it, such as 100ms or refused:10%"),
    applied: count("how often the fault took effect, counted where it did"),
    of: count("on how many occasions it could have: ops, units of chance, connects, lookups or calls, by the fault"),
    delivered_ppm: count("faults of chance: applied / of, in parts per million").max(1_000_000).optional(),
    p50_ns: count("faults that take time: the median of what the clock said, in nanoseconds").optional(),
    p99_ns: count("faults that take time: what 99 of 100 samples do not exceed, in nanoseconds").optional(),
    witnessed: count(
      "with the kernel's witness: how many delays it measured, or how many connections it saw never made or reset",
    ).optional(),
    witnessed_ppm: count("with the kernel's witness: bytes that were called and never sent, in parts per million")
      .max(1_000_000)
      .optional(),
    witnessed_p50_ns: count("with the kernel's witness: the median delay that it measured, in nanoseconds").optional(),
    witnessed_p99_ns: count("what 99 of 100 delays that it measured do not exceed, in nanoseconds").optional(),
    executor: z
      .enum(["interceptor", "relay", "both", "kernel"])
      .describe(
        "what carried the fault out; both: one some flows, the other others; kernel: the kernel itself, on connections that were there before an attach, which of then counts",
      ),
  })
  .describe("one fault asked for and one executor");

const escapedFlow = z
  .strictObject({
    peer: z.string().describe("address and port of the other end; *:* for a datagram socket without one"),
    pid: z.int().min(1).describe("the process"),
    program: z.string().describe("its program"),
    reason: z
      .string()
      .describe(
        "static, setuid, setgid, capabilities, 32-bit, libc, architecture, raw system calls, there before (an attach), or not attached for any other reason",
      ),
  })
  .describe("a flow of the run that was not intercepted");

const coverageRow = z
  .strictObject({
    program: z.string().describe("the program"),
    pid: z.int().describe("its process"),
    state: z
      .enum(["intercepted", "relayed", "escaped"])
      .describe("intercepted: carried by the interceptor; relayed: by the relay; escaped: by nobody"),
    flows: count("flows that it had; one that was carried in part counts as intercepted and as escaped"),
    bytes_up: count("bytes that the kernel saw it send"),
    bytes_down: count("bytes that the kernel saw it receive"),
  })
  .describe("what a program moved, as the kernel saw it");

const accounts = z
  .strictObject({
    called: count("bytes that the programs' own calls moved"),
    dropped: count("bytes that a fault took away whole"),
    cut: count("bytes that a fault took away in part, or that were lost with a broken connection"),
    held: count("bytes still held back at the end"),
    injected: count("bytes that a fault added"),
    duplicated: count("bytes that a fault repeated"),
    kernel: count("bytes that the kernel saw move on these flows"),
  })
  .describe("bytes of the flows that the interceptor carried, in one direction");

const determinism = z
  .strictObject({
    level: z
      .enum(["exact", "per flow", "statistical"])
      .describe("exact: the same seed decides alike; per flow: each flow does; statistical: only in the long run"),
    reason: z.string().describe("why, in words"),
  })
  .describe("how far another run with this seed would decide alike");

const attached = z
  .strictObject({
    pid: z.int().min(1).describe("the process").optional(),
    cgroup: z.string().describe("or the cgroup whose processes were").optional(),
    ended_by: z
      .enum(["duration", "stop", "signal", "process", "lost"])
      .describe("its time, mishap stop, a signal to mishap, the end of the process, or the end of mishap's own loader"),
  })
  .describe("where the program ran already: what mishap attach was told, and how it ended");

const divergence = z
  .strictObject({
    flow: z.string().describe("whose identity it is, in words"),
    op: z.string().describe("connect, send, recv or dns").optional(),
    direction: z.string().describe("uplink or downlink").optional(),
    unit: count("number of the unit, or of the call for the payload stage").optional(),
    recorded: z.string().describe("what was decided there"),
    seen: z.string().describe("what came of it"),
  })
  .describe("the first thing that was not as it was decided");

const replay = z
  .strictObject({
    source: z.string().describe("the recording, or what else decided"),
    decisions: count("decisions made beforehand"),
    met: count("of these, that were met again"),
    unmet: count("of these, that the program never came to"),
    unknown: count("flows and ops that the recording does not have"),
    divergence: divergence.optional(),
  })
  .describe("where what happens was decided beforehand");

const script = z
  .strictObject({
    file: z.string().describe("its path"),
    name: z.string().describe("as it names itself"),
    questions: count("that programs asked it"),
    late: count("of these, not answered in time: the policy's own fields applied"),
    unserved: count("that could not be asked, because its worker was being replaced: the same"),
    problems: z
      .array(
        z.strictObject({
          message: z.string().describe("in one sentence"),
          file: z.string().optional(),
          line: z.int().min(1).optional(),
          column: z.int().min(1).optional(),
          times: count("how often"),
        }),
      )
      .describe("what was wrong with it, and where"),
    metrics: z.record(z.string(), z.number()).describe("what it counted and set, by name"),
  })
  .describe("the script that decided, where there was one");

/** The schema of evidence. */
export const evidenceSchema = z
  .strictObject({
    version: z.string().describe("of mishap"),
    command: z.array(z.string()).min(1).describe("the program and its arguments"),
    seed: z
      .string()
      .regex(/^0x[0-9a-f]{1,16}$/)
      .describe("what --seed takes to repeat the run"),
    determinism,
    attached: attached.optional(),
    replay: replay.optional(),
    script: script.optional(),
    exit_code: z.int().min(0).max(255).describe("the program's own, or 128+n when signal n ended it"),
    duration_ms: count("from the program's start to its end, in milliseconds"),
    flows: count("network flows that the interceptor saw"),
    ops: count("operations of all flows: connects, sends and receives that made progress, and lookups"),
    faults: z.array(fault).describe("asked against delivered"),
    stages: z
      .record(z.string(), z.record(z.string(), z.int().min(0)))
      .describe("what each stage decided: units, connects and lookups by verdict"),
    escaped: z.array(escapedFlow).describe("what was not intercepted"),
    coverage: z
      .array(coverageRow)
      .describe("with the kernel's witness: who moved how much, adding up to what the kernel saw")
      .optional(),
    accounts: z
      .strictObject({ uplink: accounts, downlink: accounts })
      .describe("with the kernel's witness: what programs called, what became of it, and what the kernel saw")
      .optional(),
    fallbacks: z.record(z.string(), z.int().min(1)).describe("calls that passed through unfaulted, by reason"),
    notes: z.array(z.string()).describe("whatever limits what these numbers say, one sentence each"),
  })
  .describe("What one run of mishap did: asked against delivered, by fault, with what escaped.");

/** What a run did. */
export type Evidence = z.infer<typeof evidenceSchema>;
/** One fault asked for: an entry a fault and executor. */
export type FaultEvidence = z.infer<typeof fault>;
/** A flow of the run that was not intercepted. */
export type EscapedFlow = z.infer<typeof escapedFlow>;
/** What a program moved, as the kernel saw it. */
export type CoverageRow = z.infer<typeof coverageRow>;
/** What programs called in one direction, what became of it, and what the kernel saw. */
export type Accounts = z.infer<typeof accounts>;
/** A run whose decisions were made beforehand, held against them. */
export type Replay = z.infer<typeof replay>;
/** What was attached to, and how that ended. */
export type Attached = z.infer<typeof attached>;
/** The first thing that was not as it was decided. */
export type Divergence = z.infer<typeof divergence>;
/** The script that decided. */
export type ScriptEvidence = z.infer<typeof script>;
/** How far another run with this seed would decide alike. */
export type Determinism = z.infer<typeof determinism>;
