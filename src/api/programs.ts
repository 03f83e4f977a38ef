/** Who is who among the processes of a run, for what the kernel's witness saw of them. */

import { basename } from "node:path";
import type { KernelFlow } from "../kernel/words.js";
import type { EscapedFlow } from "../report/schema.js";
import type { Segment } from "../segment/index.js";
import type { EscapeWatch } from "./escapes.js";
import type { Program } from "./program.js";

const LOW_HALF = 0xffffffffn;

/** Names processes, by the segment's own table where they carry the interceptor. */
export class Programs {
  readonly #carrying = new Map<bigint, string>();
  readonly #byPid = new Map<number, string>();
  readonly #escapes: EscapeWatch;
  readonly #root: { readonly pid: number; readonly program: Program };

  constructor(segment: Segment, escapes: EscapeWatch, root: { readonly pid: number; readonly program: Program }) {
    this.#escapes = escapes;
    this.#root = root;
    for (const { pid, start, program } of segment.processes()) {
      const name = basename(String(program));
      this.#carrying.set((BigInt(Number(pid)) << 32n) | (BigInt(Number(start)) & LOW_HALF), name);
      this.#byPid.set(Number(pid), name);
    }
  }

  carries(process: bigint): boolean {
    return this.#carrying.has(process);
  }

  programOf(flow: { readonly pid: number; readonly program: string; readonly process?: bigint }): string {
    const carrying = flow.process === undefined ? this.#byPid.get(flow.pid) : this.#carrying.get(flow.process);
    return carrying ?? this.#escapes.find(flow.pid)?.program ?? flow.program;
  }

  /** A flow that nobody carried, as evidence lists it. */
  asEscaped(flow: KernelFlow): EscapedFlow {
    const peer = flow.peer.endsWith(":0") ? "*:*" : flow.peer;
    return { peer, pid: flow.pid, program: this.programOf(flow), reason: this.#reasonOf(flow) };
  }

  #reasonOf({ pid, process }: KernelFlow): string {
    if (this.carries(process)) return "raw system calls";
    const root = pid === this.#root.pid ? this.#root.program.unreachable : undefined;
    return this.#escapes.find(pid)?.reason ?? root ?? "not attached";
  }
}
