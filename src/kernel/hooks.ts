/**
 * The kernel's hooks as a user sees them: whether each works here, asked of the loader, and what is missing without it.
 */

import { spawnSync } from "node:child_process";
import { z } from "zod";
import { nativeFolder } from "../segment/index.js";

/** What a hook is for. */
const PURPOSES = ["ownership", "claims", "bytes", "states", "arrivals", "retransmits", "resets"] as const;
export type Purpose = (typeof PURPOSES)[number];

const hookSchema = z.object({
  name: z.string(),
  for: z.enum(PURPOSES),
  ok: z.boolean(),
  reason: z.string().optional(),
});

/** One place in the kernel where a program of mishap's is put, and whether it could be. */
export type Hook = z.infer<typeof hookSchema>;

const probeSchema = z.object({
  facts: z.object({
    btf: z.boolean(),
    cgroup2: z.string().nullable(),
    rights: z.boolean(),
    libbpf: z.string(),
  }),
  hooks: z.array(hookSchema),
});

/** What the loader found when it tried each hook by itself. */
export type Probe = z.infer<typeof probeSchema>;

/** What a run or a watch goes without where a hook of this purpose is missing. */
export const WITHOUT: Readonly<Record<Purpose, string>> = {
  ownership: "whose a socket is, is known from its first use at best, not from its creation, and its end may go unseen",
  claims: "coverage cannot tell what the interceptor carries, and delays on the way out are not witnessed",
  bytes: "what flows move is not seen: no rates, no coverage, no witnessed delays",
  states: "connections are seen without their states: opening, established, closing",
  arrivals: "arrivals are dated by the receiving socket's own timestamps, as without the kernel's side",
  retransmits: "segments that TCP sent again are not counted",
  resets: "connections that end by a reset are not told from others",
};

/** Where the build puts the loader. */
const LOADER_PATH = `${nativeFolder}mishap-loader`;
const PATIENCE_MS = 20_000;

/**
 * Has the loader try every hook, with the rights of this process.
 *
 * @throws {Error} one sentence: why the loader itself did not start
 */
export function probeHooks(): Probe {
  const { error, status, signal, stdout, stderr } = spawnSync(LOADER_PATH, ["probe"], {
    encoding: "utf8",
    timeout: PATIENCE_MS,
  });
  if (error !== undefined) {
    const missing = "code" in error && error.code === "ENOENT";
    throw new Error(missing ? `${LOADER_PATH} is not there` : error.message);
  }
  const said = parseLine(stdout);
  if (said !== undefined) return said;
  const complaint = stderr.trim().split("\n")[0] ?? "";
  throw new Error(complaint === "" ? `the loader ended with ${signal ?? `status ${status}`}` : complaint);
}

function parseLine(line: string): Probe | undefined {
  try {
    return probeSchema.parse(JSON.parse(line));
  } catch {
    return undefined; // it did not get that far
  }
}
