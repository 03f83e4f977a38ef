/**
 * What the loader says, a line of JSON each: its hooks, and the flows that the kernel saw. Every line is checked; a
 * line of any other shape is an error that names it.
 */

import { z } from "zod";

const count = z.int().min(0);
/** 64 bits, which JSON's numbers do not hold. */
const wide = z
  .string()
  .regex(/^\d{1,20}$/)
  .transform(BigInt);

const hook = z.object({
  /** As the kernel names it, such as `cgroup/sock_create`. */
  name: z.string(),
  for: z.enum([
    "ownership",
    "claims",
    "bytes",
    "states",
    "arrivals",
    "retransmits",
    "resets",
    "redirection",
    "inbound",
    "silence",
  ]),
  ok: z.boolean(),
  /** Why not, in the kernel's words. */
  reason: z.string().optional(),
});

const flow = z.object({
  /** The socket's, as SO_COOKIE has it. */
  cookie: wide,
  pid: z.int(),
  tid: z.int(),
  /** pid << 32 | the low half of its start time in ticks. */
  process: wide,
  /** The name of the thread that owns it, as in /proc/PID/comm. */
  program: z.string(),
  role: z.enum(["connector", "acceptor", "datagram", "listener"]),
  protocol: z.enum(["tcp", "udp"]),
  open: z.boolean(),
  state: z.string(),
  /** Address and port; an IPv6 address stands in brackets. */
  local: z.string(),
  peer: z.string(),
  /** The interceptor said that it carries this flow. */
  claimed: z.boolean(),
  /** Its connection was handed to the relay. */
  relayed: z.boolean(),
  /** Slot of the policy that the flow was claimed for, or -1. */
  policy: z.int(),
  /** A RST ended it. */
  reset: z.boolean(),
  created_ns: wide,
  bytes_up: count,
  bytes_down: count,
  ops_up: count,
  ops_down: count,
  rtt_us: count,
  retransmits: count,
  resets: count,
  /** Sends that failed. */
  failures: count,
});

const summary = z.object({
  /** There was a relay, and it ended before it was told to. */
  relay_lost: z.boolean(),
  open: count,
  closed: count,
  /** Events that found the ring full. */
  lost_events: count,
  /** Sockets that found the table full, and the bytes of sockets whose close went unheard. */
  without_row: count,
  lost_bytes_up: count,
  lost_bytes_down: count,
  /** Closed sockets beyond those that are kept one by one. */
  older: z.array(
    z.object({
      pid: z.int(),
      program: z.string(),
      claimed: z.boolean(),
      relayed: z.boolean(),
      flows: count,
      bytes_up: count,
      bytes_down: count,
    }),
  ),
  /** Delays of each policy's slot (0 uplink, 1 downlink), in the buckets of native/contract/stats.h. */
  delays: z.array(
    z.object({
      policy: z.int(),
      direction: z.int().min(0).max(1),
      buckets: z.array(z.tuple([count, count])),
    }),
  ),
});

/** Connections that were there before an attach, and how many were treated how. */
const treated = z.object({
  /** The cookies of all. */
  found: z.array(wide),
  reset: count,
  silenced: count,
  paced: count,
  /** Why some could not be, the last one's. */
  problem: z.string().optional(),
});

const line = z.union([
  z.object({ error: z.string() }),
  z.object({ ready: z.literal(true), cgroup: z.string().nullish(), hooks: z.array(hook) }),
  z.object({ joined: z.int() }),
  z.object({ left: z.int() }),
  z.object({ relayed: z.literal(true), before: treated.optional() }),
  z.object({ drained: z.literal(true) }),
  z.object({ gone: z.literal(true) }),
  z.object({ flow }),
  z.object({ flows: summary }),
]);

const probe = z.object({
  facts: z.object({
    /** The kernel describes its types. */
    btf: z.boolean(),
    /** Where it is mounted. */
    cgroup2: z.string().nullable(),
    /** Programs may be loaded. */
    rights: z.boolean(),
    /** Its version. */
    libbpf: z.string(),
  }),
  hooks: z.array(hook),
});

/** A place in the kernel where the witness listens, or could not. */
export type KernelHook = z.infer<typeof hook>;
/** One socket as the kernel saw it. */
export type KernelFlow = z.infer<typeof flow>;
/** What goes for all flows together. */
export type KernelSummary = z.infer<typeof summary>;
/** What came of the connections that were there before an attach. */
export type Treated = z.infer<typeof treated>;
/** What the loader found when it tried each hook by itself: its one line then. */
export type KernelProbe = z.infer<typeof probe>;
/** One line of the loader's. */
export type LoaderLine = z.infer<typeof line>;

const LONGEST_SHOWN = 80;

/** Reads a line of the loader's. Throws an Error of one sentence for a line that it should not have said. */
export const parseLine = (text: string): LoaderLine => parseAs(line, text);
/** Reads what `probe` says; throws alike. */
export const parseProbe = (text: string): KernelProbe => parseAs(probe, text);

function parseAs<T>(schema: z.ZodType<T>, text: string): T {
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    const shown = text.length > LONGEST_SHOWN ? `${text.slice(0, LONGEST_SHOWN)}…` : text;
    throw new Error(
      `it said ${JSON.stringify(shown)}, which this version of mishap does not understand; \`npm run build\` makes both alike`,
    );
  }
}
