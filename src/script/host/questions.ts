/** How what runs inside the jail asks the broker outside: one question, and this thread waits for the answer. */

import { native } from "../../segment/native.js";
import { type Ask, askSchema, type Reply } from "../asks.js";
import { PermissionDenied } from "../denied.js";

type Ok = Extract<Reply, { ok: unknown }>["ok"];

/** What was permitted and done. Who gets a descriptor closes it. */
export interface Granted extends Ok {
  readonly descriptor: number | undefined;
}

/** The broker outside, at the other end of a socket. */
export class Questions {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Asks and waits.
   * @param code - what a PermissionDenied says, where the system has refused the same already
   * @throws PermissionDenied, or what the system said to the broker, with its `code`.
   */
  ask(question: Ask, code?: string): Granted {
    // The broker ends the conversation over such a thing: a host of a thousand letters, a path with a zero in it.
    if (!askSchema.safeParse(question).success) {
      throw Object.assign(new Error(`EINVAL: invalid argument, ${question.ask}`), { code: "EINVAL" });
    }
    const { text, descriptor } = native.request(this.#fd, JSON.stringify(question));
    const reply = JSON.parse(text) as Reply;
    if ("ok" in reply) return { ...reply.ok, descriptor };
    if ("denied" in reply) throw new PermissionDenied(reply.denied, code);
    throw Object.assign(new Error(reply.failed.message), { code: reply.failed.code });
  }

  /** As {@link ask}, for what comes with a descriptor. */
  askForDescriptor(question: Ask, code?: string): number {
    const { descriptor } = this.ask(question, code);
    if (descriptor === undefined) throw new Error("the broker sent no descriptor");
    return descriptor;
  }

  /**
   * What an error of the kernel is to a script: a PermissionDenied where the thing was not granted, else itself.
   * @param value - a path, or for `run` a program by path or name
   */
  explain(error: unknown, permission: "read" | "write" | "run", value: string): unknown {
    if (!isRefusal(error)) return error;
    try {
      this.ask({ ask: "refused", permission, value }, error.code);
      return error;
    } catch (reason) {
      return reason instanceof PermissionDenied ? reason : error;
    }
  }
}

/** The kernel said that this must not be. */
export function isRefusal(error: unknown): error is Error & { code: string } {
  return error instanceof Error && "code" in error && (error.code === "EACCES" || error.code === "EPERM");
}
