// What loss of datagrams must look like, whoever counts.
import { expect } from "vitest";
import type { Talker } from "./talk.js";

/** Sends or receives `many` datagrams by `call` under loss and holds program, peer and evidence to the share asked for. */
export async function expectLoss(
  talker: Talker,
  direction: "uplink" | "downlink",
  call: string,
  many: number,
  share: number,
  seed: number,
): Promise<void> {
  const field = `${direction}.packet_loss`;
  const flags = [`--${direction}.packet-loss`, `${share * 100}%`, "--seed", String(seed)];
  const work = direction === "uplink" ? [`a.flood:${call}:${many}:x`] : ["a.nonblock", `a.soak:${call}:${many}:x`];
  const run = await talker.under(flags, "x.rawudp", "a.udp:@x", "x.rawto:@a", ...work);
  const done = run.one(work.at(-1) ?? "");
  const arrived = direction === "uplink" ? Number(done.data) : done.result;
  if (direction === "uplink") expect(done.result).toBe(many); // every call said success
  expect(run.evidence.fallbacks).toEqual({});
  expect(run.fault(field)).toMatchObject({ applied: many - arrived, of: many });
  const sigma = Math.sqrt(many * share * (1 - share));
  expect(many - arrived).toBeGreaterThan(many * share - 4.5 * sigma);
  expect(many - arrived).toBeLessThan(many * share + 4.5 * sigma);
  expect(run.fault(field).delivered_ppm).toBe(Math.round(((many - arrived) / many) * 1e6));
}
