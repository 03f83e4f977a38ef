/**
 * What a script may try against the run that asks it, from inside its jail: forge what its host says, answer what pollutes or
 * never ends, stay after the end. Whatever it is, the program runs on time, nobody is shown a stack trace, what is wrong is
 * said, and nothing is left. What scripts may try against the machine is in jail.test.ts.
 */
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { evidenceSchema } from "../../src/report/schema.js";
import { users } from "./support/jail.js";
import { UserFolder, unjailed, unreachable } from "./support/user-folder.js";

const EXCHANGES = fileURLToPath(new URL("../programs/exchanges.py", import.meta.url));
/** One connection's exchanges, and how long it waits before each. */
const COUNT = 40;
const PAUSE_MS = 15;
const PATIENCE_MS = 50;

let server: Server;
let port = 0;
beforeAll(async () => {
  server = createServer((socket) => socket.on("error", () => {}).pipe(socket));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address !== null && typeof address !== "string") port = address.port;
});
afterAll(() => {
  server.close();
});

/** A statement in onOp, once, what is said of it, and whether later ops are answered as before. */
interface Escape {
  readonly tries: string;
  readonly problem: RegExp | undefined;
}

const POLLUTION = '{ "__proto__": { "polluted": 1 }, "constructor": { "prototype": { "polluted": 1 } } }';
const forged = (news: string): string => `{ "kind": "news", "news": ${news} }\\n`;
/** Which limit a hog meets first is the machine's: its time, its heap's, or its process's memory, of which a buffer is refused. */
const STOPPED =
  /did not return within 1000 ms|took more than 128 MB of memory|the script host died|Array buffer allocation failed/;
const GONE = /the script host died and is started again/;

const ESCAPES: Readonly<Record<string, Escape>> = {
  "a report that is none": { tries: `say(3, '${forged("7")}');`, problem: GONE },
  "a report of another shape": {
    tries: `say(3, '${forged('{ "problems": [{ "problem": 5, "times": "x" }], "said": [null], "answers": 3 }')}');`,
    problem: GONE,
  },
  "a report that pollutes": {
    tries: `say(3, '${forged(`{ "problems": [], "said": [{ "kind": "count", "name": "__proto__", "value": ${POLLUTION} }], "answers": [{ "value": 1, "fields": ${POLLUTION} }] }`)}');`,
    problem: GONE,
  },
  "reports for questions that nobody asked": {
    tries: `for (let id = 0; id < 1000; id++) say(3, JSON.stringify({ id, kind: "reply", reply: 5 }) + "\\n");`,
    problem: GONE,
  },
  "a report without an end": {
    tries: `const part = "x".repeat(1 << 16);
      for (let i = 0; i < 1000; i++) say(3, part);`,
    problem: GONE,
  },
  "problems without an end": {
    tries: `for (let i = 0; i < 20_000; i++) say(3, '{ "kind": "news", "news": { "problems": [{ "problem": { "message": "' + i + '" }, "times": 1 }], "said": [], "answers": [] } }\\n');`,
    problem: /^0$/,
  },
  "metrics without an end": {
    tries: `for (let i = 0; i < 20_000; i++) say(3, '{ "kind": "news", "news": { "problems": [], "said": [{ "kind": "count", "name": "' + i + '", "value": 1 }], "answers": [] } }\\n');`,
    problem: /metrics besides the first 1000 are left out/,
  },
  "garbage for the broker": { tries: `say(4, "garbage\\n");`, problem: /asked for what is no question/ },
  "an answer that pollutes": { tries: `return JSON.parse('${POLLUTION}');`, problem: /__proto__|constructor/ },
  "an answer whose getters throw": {
    tries: `return { get latency(): string { throw new Error("got"); } };`,
    problem: /getter|got/,
  },
  "an answer that never ends to be read": {
    tries: `return new Proxy({}, { ownKeys: () => { for (;;); } });`,
    problem: /answered a proxy/,
  },
  "an answer within itself": {
    tries: `const answer: any = { fields: {} }; answer.fields.uplink = answer; return answer;`,
    problem: /answered|unknown/,
  },
  "an answer of many fields": {
    tries: `return Object.fromEntries(Array.from({ length: 1e5 }, (_, i) => ["f" + i, i])) as any;`,
    problem: /answer/,
  },
  "a prototype that everything has": {
    tries: `(Object.prototype as any).latency = "900ms";
      (Object.prototype as any).toJSON = () => ({ polluted: 1 });`,
    problem: undefined,
  },
  "timers without an end": {
    tries: `const again = (): void => { for (let i = 0; i < 10; i++) setImmediate(again); }; again();`,
    problem: STOPPED,
  },
  "promises without an end": {
    tries: `const again = (): Promise<void> => Promise.resolve().then(again); void again();`,
    problem: STOPPED,
  },
  "an error between questions": {
    tries: `setTimeout(() => { throw new Error("between"); }, 1);`,
    problem: /between/,
  },
  "a rejection that nobody handles": { tries: `void Promise.reject(new Error("alone"));`, problem: /alone/ },
  "its host's death": { tries: `process.kill(process.pid, "SIGKILL");`, problem: GONE },
  "its host's abortion": { tries: `process.abort();`, problem: /not supported/ },
  "buffers beyond all memory": {
    tries: `const all: Buffer[] = []; for (;;) all.push(Buffer.alloc(1 << 26, 1));`,
    problem: STOPPED,
  },
  "workers of its own": {
    tries: `for (let i = 0; i < 3; i++) new Worker("for (;;);", { eval: true });`,
    problem: undefined,
  },
  "to stay when the run ends": {
    tries: `for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => {});
      process.on("exit", () => { for (;;); });
      setInterval(() => {}, 1);`,
    problem: undefined,
  },
};

beforeEach(({ skip }) => skip(unjailed !== undefined, unjailed));

describe.each(users().map((user) => [user.name, user] as const))("as %s", (_, user) => {
  const refused = unreachable(user);
  beforeEach(({ skip }) => skip(refused !== undefined, refused));
  const place = new UserFolder(user);

  it.each(Object.entries(ESCAPES))("a script tries %s", async (_name, { tries, problem }) => {
    const project = `test_${randomBytes(4).toString("hex")}`;
    const script = place.file(
      `${project}.ts`,
      `import { writeSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { policy } from "mishap/script";
const say = (fd: number, text: string): void => {
  for (let at = 0; at < text.length; ) {
    try {
      at += writeSync(fd, text.slice(at));
    } catch (error) {
      if ((error as { code?: string }).code !== "EAGAIN") throw error;
    }
  }
};
export default policy({
  name: "escapes",
  onOp(op, ctx): any {
    if (op.kind !== "send") return undefined;
    if (op.unit === 2) {
      writeSync(2, "TRIED\\n");
      ${tries}
    }
    return { uplink: { latency: "8ms" } };
  },
});
void Worker;
`,
    );
    const json = place.path(`${project}.json`);
    const flags = ["--project", project, "--script", script, "--script-patience", `${PATIENCE_MS}ms`, "--json", json];
    const program = ["python3", EXCHANGES, String(COUNT), String(PAUSE_MS), String(port)];
    const { code, stdout, stderr } = await place.mishap("run", ...flags, "--", ...program);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stderr).toContain("TRIED");
    expect(stderr).not.toMatch(/^ {4}at /m);

    const [{ took }] = JSON.parse(stdout) as [{ took: (number | string)[] }];
    expect(took.filter((each) => typeof each !== "number" || each > 500)).toEqual([]);
    const text = readFileSync(json, "utf8");
    const { script: said } = evidenceSchema.parse(JSON.parse(text));
    expect(text).not.toContain("polluted");
    expect(said?.problems.length).toBeLessThan(200);
    expect(Object.keys(said?.metrics ?? {}).length).toBeLessThanOrEqual(1000);
    const messages = said?.problems.map(({ message }) => message) ?? [];
    if (problem === undefined) expect(messages).toEqual([]);
    else expect(messages).toContainEqual(expect.stringMatching(problem));

    expect(readdirSync("/dev/shm").filter((name) => name.includes(project))).toEqual([]);
    const commands = readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map(commandOf);
    expect(commands.filter((each) => each.includes("script/host/main.js"))).toEqual([]);
  });
});

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return "";
  }
}
