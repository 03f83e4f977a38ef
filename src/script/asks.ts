/** What is said over the broker's socket: lines of JSON, one question and one answer at a time. */

import { z } from "zod";
import type { Wish } from "./wish.js";

/** What `sys` permits to know: functions of node:os, by their names. */
export const SYSTEM_FACTS = [
  "cpus",
  "freemem",
  "homedir",
  "hostname",
  "loadavg",
  "networkInterfaces",
  "release",
  "totalmem",
  "uptime",
  "userInfo",
  "version",
] as const;
export type SystemFact = (typeof SYSTEM_FACTS)[number];

const LONGEST_PATH = 4096;
const LONGEST_HOST = 255;

const host = z.string().min(1).max(LONGEST_HOST);
const port = z.int().min(0).max(65535);
const text = z
  .string()
  .min(1)
  .max(LONGEST_PATH)
  .regex(/^[^\0]*$/);
const path = text.startsWith("/");

/** A question from inside the jail, which is held to this whatever it says. */
export const askSchema = z.discriminatedUnion("ask", [
  z.strictObject({ ask: z.literal("connect"), host, port }),
  z.strictObject({ ask: z.literal("listen"), host, port }),
  z.strictObject({ ask: z.literal("resolve"), host }),
  z.strictObject({ ask: z.literal("open"), path, flags: z.enum(["r", "w", "a"]) }),
  z.strictObject({ ask: z.literal("env"), name: z.string().min(1).max(LONGEST_HOST) }),
  z.strictObject({ ask: z.literal("sys"), fact: z.enum(SYSTEM_FACTS) }),
  // The kernel refused something: is it that it was not granted?
  z.strictObject({ ask: z.literal("refused"), permission: z.enum(["read", "write", "run"]), value: text }),
]);

export type Ask = z.infer<typeof askSchema>;

/** An address that a name stands for. */
export interface Address {
  readonly address: string;
  readonly family: number;
}

/** What comes back; a descriptor comes beside it. */
export type Reply =
  | { readonly ok: { readonly addresses?: readonly Address[]; readonly value?: string } }
  | { readonly denied: Wish }
  | { readonly failed: { readonly code: string; readonly message: string } };
