/** Where functions are written, as the engine knows it. */

import { Session } from "node:inspector";
import type { ScriptProblemPlace } from "../questions.js";
import { fileOf, isUsers } from "./problems.js";

const HELD = "__mishap_functions";

/** The places of functions, by name; without those that are nobody's. */
export function placesOf(functions: Readonly<Record<string, unknown>>): Record<string, ScriptProblemPlace> {
  const places: Record<string, ScriptProblemPlace> = {};
  const session = new Session();
  session.connect();
  try {
    const urls = new Map<string, string>();
    session.on("Debugger.scriptParsed", ({ params }) => urls.set(params.scriptId, params.url));
    session.post("Debugger.enable");
    Object.defineProperty(globalThis, HELD, { value: functions, configurable: true });
    for (const name of Object.keys(functions)) {
      session.post("Runtime.evaluate", { expression: `${HELD}[${JSON.stringify(name)}]` }, (_, found) => {
        const { objectId } = found.result;
        if (objectId === undefined) return;
        session.post("Runtime.getProperties", { objectId, ownProperties: true }, (__, { internalProperties }) => {
          const location: unknown = internalProperties?.find((each) => each.name === "[[FunctionLocation]]")?.value
            ?.value;
          if (!isLocation(location)) return;
          const url = urls.get(location.scriptId) ?? "";
          if (!isUsers(url)) return;
          places[name] = { file: fileOf(url), line: location.lineNumber + 1, column: location.columnNumber + 1 };
        });
      });
    }
  } finally {
    Reflect.deleteProperty(globalThis, HELD);
    session.disconnect();
  }
  return places;
}

function isLocation(value: unknown): value is { scriptId: string; lineNumber: number; columnNumber: number } {
  return typeof value === "object" && value !== null && "scriptId" in value;
}
