/** Where a worker is that does not come back: asked by the main thread, through the debugger's protocol. */

import { Session } from "node:inspector";
import type { ScriptProblemPlace } from "../questions.js";
import { fileOf, isUsers } from "./problems.js";

/** The first place of the user's in a thread's stack; undefined where the thread does not say within a time. */
export async function placeOfThread(threadId: number, patienceMs: number): Promise<ScriptProblemPlace | undefined> {
  const session = new Session();
  session.connect();
  const urls = new Map<string | undefined, string | undefined>();
  const send = (sessionId: string, id: number, method: string): void => {
    session.post("NodeWorker.sendMessageToWorker", { sessionId, message: JSON.stringify({ id, method }) });
  };
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise((resolve) => {
      timer = setTimeout(() => resolve(undefined), patienceMs);
      session.on("NodeWorker.attachedToWorker", ({ params }) => {
        // Ids here are the debugger's own; the title has the thread's.
        if (!params.workerInfo.title.startsWith(`[worker ${threadId}]`)) return;
        send(params.sessionId, 1, "Debugger.enable");
        send(params.sessionId, 2, "Debugger.pause");
      });
      session.on("NodeWorker.receivedMessageFromWorker", ({ params }) => {
        const message: Paused = JSON.parse(params.message);
        const { method, params: said } = message;
        if (method === "Debugger.scriptParsed") urls.set(said?.scriptId, said?.url);
        if (method !== "Debugger.paused") return;
        // A thread that is paused cannot be ended.
        send(params.sessionId, 3, "Debugger.disable");
        resolve(placeOf(message, urls));
      });
      session.post("NodeWorker.enable", { waitForDebuggerOnStart: false });
    });
  } finally {
    clearTimeout(timer);
    session.disconnect();
  }
}

interface Paused {
  readonly method?: string;
  readonly params?: {
    /** Of scriptParsed. */
    readonly scriptId?: string;
    readonly url?: string;
    readonly callFrames?: readonly { location: { scriptId: string; lineNumber: number; columnNumber?: number } }[];
  };
}

function placeOf(
  { params }: Paused,
  urls: ReadonlyMap<string | undefined, string | undefined>,
): ScriptProblemPlace | undefined {
  for (const { location } of params?.callFrames ?? []) {
    const url = urls.get(location.scriptId) ?? "";
    if (isUsers(url))
      return { file: fileOf(url), line: location.lineNumber + 1, column: (location.columnNumber ?? 0) + 1 };
  }
  return undefined;
}
