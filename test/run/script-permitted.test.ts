/** What scripts may do, from outside: each permission opens what it names and nothing else, on every command that runs scripts. */
import { mkdirSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type PermissionLogEntry, permissionLogEntry } from "../../src/script/audit.js";
import { type Finished, freshProject, MISHAP, segmentFiles, start } from "./cli-harness.js";
import { type User, users } from "./support/jail.js";
import { UserFolder, unjailed, unreachable } from "./support/user-folder.js";

beforeEach(({ skip }) => skip(unjailed !== undefined, unjailed));

const servers: Server[] = [];
/** Of two servers, of which one is granted. */
let [granted, other] = [0, 0];
beforeAll(async () => {
  const serve = (): Promise<number> => {
    const server = createServer((_, answer) => answer.end("hello"));
    servers.push(server);
    return new Promise((ready) => server.listen(0, "127.0.0.1", () => ready((server.address() as AddressInfo).port)));
  };
  [granted, other] = [await serve(), await serve()];
});
afterAll(() => {
  for (const server of servers) server.close();
});

/** A user's folder, with what scripts try to reach. */
class Place extends UserFolder {
  constructor(user: User) {
    super(user);
    this.file("data.txt", "data");
  }

  /** A script that tries statements, in which `load` imports, while it loads; each may return something. */
  script(name: string, tries: Readonly<Record<string, string>>, header = ""): string {
    const functions = Object.entries(tries).map(([what, statement]) => `  ${what}: async () => { ${statement} },`);
    return this.file(
      name,
      `${header}
import { PermissionDenied, policy } from "mishap/script";
const load = (name: string): Promise<any> => import(name);
const tries: Record<string, () => Promise<unknown>> = {
${functions.join("\n")}
};
const came: Record<string, unknown> = {};
for (const [what, attempt] of Object.entries(tries)) {
  try {
    came[what] = (await attempt()) ?? "done";
  } catch (error) {
    came[what] = error instanceof PermissionDenied ? \`denied: \${error.message}\` : String(error);
  }
}
console.log("CAME " + JSON.stringify(came));
export default policy({ name: "tries", onFlow: () => undefined });
`,
    );
  }

  /** What came of a script's tries. */
  async came(way: Way, script: string, flags: readonly string[]): Promise<Record<string, unknown>> {
    const end = await this.mishap(...WAYS[way](script, flags));
    return cameOf(end);
  }

  log(name: string): PermissionLogEntry[] {
    const lines = readFileSync(this.path(name), "utf8").trim().split("\n");
    return lines.map((line) => permissionLogEntry.parse(JSON.parse(line)));
  }
}

function cameOf({ stderr, stdout }: Finished): Record<string, unknown> {
  const [, came] = /CAME (\{.*\})/.exec(stderr + stdout) ?? [];
  if (came === undefined) throw new Error(`the script said nothing: ${stderr}${stdout}`);
  return JSON.parse(came);
}

type Way = "run" | "test";
const WAYS: Readonly<Record<Way, (script: string, flags: readonly string[]) => string[]>> = {
  run: (script, flags) => ["run", "--script", script, ...flags, "--", "sleep", "0.3"],
  test: (script, flags) => ["script", "test", script, "--flows", "1", ...flags],
};

const cases = users().flatMap((user) => (["run", "test"] as const).map((way) => [way, user.name, user] as const));

describe.each(cases)("%s, as %s", (way, _, user) => {
  const refused = unreachable(user);
  beforeEach(({ skip }) => skip(refused !== undefined, refused));
  const place = new Place(user);
  /** What each permission is needed for, and the flag that opens just that. */
  const flags: () => Record<string, string> = () => ({
    read: `--allow-read=${place.path("data.txt")}`,
    write: `--allow-write=${place.path("made.txt")}`,
    net: `--allow-net=127.0.0.1:${granted}`,
    env: "--allow-env=GRANTED",
    run: `--allow-run=${realpathSync("/bin/echo")}`,
    sys: "--allow-sys",
  });
  const tries = () => ({
    read: `return (await load("node:fs")).readFileSync("data.txt", "utf8")`,
    write: `(await load("node:fs")).writeFileSync("made.txt", "made")`,
    net: `return (await fetch("http://127.0.0.1:${granted}/")).text()`,
    env: "return process.env.GRANTED",
    run: `return String((await load("node:child_process")).execFileSync("/bin/echo", ["ran"]))`,
    sys: `return typeof (await load("node:os")).hostname()`,
    elsewhere: `return (await fetch("http://127.0.0.1:${other}/")).text()`,
    secret: "return process.env.SECRET",
    beside: `return (await load("node:fs/promises")).readFile("beside.txt", "utf8")`,
  });
  const worked: Record<string, string> = {
    read: "data",
    write: "done",
    net: "hello",
    env: "yes",
    run: "ran\n",
    sys: "string",
  };

  it("denies everything where nothing is granted, and names each flag", async () => {
    place.file("beside.txt", "beside");
    const came = await place.came(way, place.script("tries.ts", tries()), ["--permission-log", "denied.jsonl"]);
    for (const [permission, flag] of Object.entries(flags())) {
      expect(came[permission]).toMatch(/^denied: /);
      expect(String(came[permission]).endsWith(`run again with ${flag}`)).toBe(true);
    }
    const log = place.log("denied.jsonl");
    for (const permission of Object.keys(flags())) {
      expect(log).toContainEqual(
        expect.objectContaining({ action: "deny", permission, script: expect.stringContaining("tries.ts") }),
      );
    }
    expect(log.every(({ action }) => action === "deny")).toBe(true);
  });

  it.each(Object.keys(worked))("--allow-%s opens what it names and nothing else", async (permission) => {
    place.file("beside.txt", "beside");
    rmSync(place.path("made.txt"), { force: true });
    const flag = flags()[permission] ?? "";
    const file = `${permission}.jsonl`;
    const came = await place.came(way, place.script("tries.ts", tries()), [flag, "--permission-log", file]);
    const open = Object.entries(came).filter(([, outcome]) => !String(outcome).startsWith("denied: "));
    expect(open).toEqual([[permission, worked[permission]]]);
    const [first] = place.log(file);
    expect(first).toMatchObject({ source: "flags", action: "grant", permission, why: `${flag} was given` });
  });

  it("a denial beats every grant", async () => {
    place.file("beside.txt", "beside");
    const script = place.script("tries.ts", tries());
    const denials = [`--deny-net=127.0.0.1:${other}`, "--deny-env=SECRET", "--deny-read=beside.txt"];
    const came = await place.came(way, script, ["-A", ...denials]);
    expect(came).toMatchObject(worked);
    for (const what of ["elsewhere", "secret", "beside"]) expect(came[what]).toMatch(/^denied: /);
    const none = await place.came(way, script, ["--allow-all", "--deny-sys", "--deny-run", "--deny-write"]);
    for (const what of ["sys", "run", "write"]) expect(none[what]).toMatch(/^denied: /);
    expect(none).toMatchObject({ read: "data", net: "hello", env: "yes" });
  });
});

describe("files and names", () => {
  const [user] = users();
  if (user === undefined) return;
  const place = new Place(user);

  it("what may be written cannot be renamed to what may be read", async () => {
    place.file("vault/open.txt", "open");
    place.file("vault/secret.txt", "secret");
    place.file("vault/inner/secret.txt", "secret");
    const rename = (from: string, to: string): string =>
      `const fs = await load("node:fs"); fs.renameSync("${from}", "${to}"); return fs.readFileSync("${to}", "utf8")`;
    const script = place.script("rename.ts", {
      onto: rename("vault/secret.txt", "vault/open.txt"),
      late: rename("vault/secret.txt", "vault/late.txt"),
      away: rename("vault/inner/secret.txt", "vault/inner/moved.txt"),
    });
    const allowed = ["--allow-write=vault", "--allow-read=vault/open.txt,vault/late.txt,vault/inner/moved.txt"];
    const denied = ["--allow-write=vault", "--allow-read=vault", "--deny-read=vault/secret.txt,vault/inner"];
    for (const flags of [allowed, denied]) {
      expect(Object.values(await place.came("test", script, flags))).not.toContain("secret");
    }
    expect(readFileSync(place.path("vault/secret.txt"), "utf8")).toBe("secret");
  });

  it("folders that are granted are written in, and made in", async () => {
    mkdirSync(place.path("out"));
    const script = place.script("make.ts", {
      make: `const fs = await load("node:fs"); fs.mkdirSync("out/a"); fs.writeFileSync("out/a/b", "b")`,
      read: `return (await load("node:fs")).readFileSync("out/a/b", "utf8")`,
    });
    const came = await place.came("test", script, ["--allow-write=out"]);
    expect(came).toEqual({ make: "done", read: expect.stringMatching(/^denied: /) });
  });

  it("packages and parts are imported from folders that may be read", async () => {
    place.file("node_modules/small/package.json", '{ "name": "small", "type": "module", "exports": "./index.js" }');
    place.file("node_modules/small/index.js", 'import { inner } from "./inner.js"; export const small = inner;');
    place.file("node_modules/small/inner.js", 'export const inner = "small";');
    place.file("parts/part.ts", "export const part: string = 'part';");
    const script = place.file(
      "scripts/importing.ts",
      `import { policy } from "mishap/script";
import { small } from "small";
import { part } from "../parts/part.ts";
export default policy({ name: small + part });
`,
    );
    const test = (...flags: string[]): Promise<Finished> => place.mishap("script", "check", script, ...flags);
    place.file("node_modules/small/index.d.ts", "export const small: string;");
    expect(await test("--allow-read=node_modules,parts")).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('policy "smallpart"'),
    });
    expect(await test("--allow-read=node_modules")).toMatchObject({
      code: 1,
      stderr: `${script}:3:23: imports ${place.path("parts/part.ts")}, which needs --allow-read=${place.path("parts/part.ts")}\n`,
    });
    const { code, stderr } = await test("--allow-read=parts");
    expect(code).toBe(1);
    expect(stderr).toContain(`${script}:2:23: `);
    expect(stderr).toContain(`--allow-read=${place.path("node_modules/small")}`);
  });
});

describe("servers of scripts", () => {
  const [user] = users();
  if (user === undefined) return;
  const place = new Place(user);
  const serve = (host: string): string => `const { createServer } = await load("node:http");
    const server = createServer((_, answer) => answer.end("served"));
    await new Promise((ok, no) => server.once("error", no).listen(0, ${host}, ok));
    const text = await (await fetch("http://127.0.0.1:" + server.address().port)).text();
    server.close();
    return text`;

  it.each(["run", "test"] as const)("listen where that is granted: %s", async (way) => {
    const script = place.script("listen.ts", { here: serve('"127.0.0.1"'), everywhere: serve("undefined") });
    expect(await place.came(way, script, ["--allow-net=127.0.0.1"])).toEqual({
      here: "served",
      everywhere: expect.stringContaining("run again with --allow-net=0.0.0.0:0"),
    });
    expect(await place.came(way, script, [])).toMatchObject({ here: expect.stringMatching(/^denied: /) });
  });
});

describe("what a script declares", () => {
  const [user] = users();
  if (user === undefined) return;
  const place = new Place(user);
  const tries = {
    read: `return (await load("node:fs")).readFileSync("data.txt", "utf8")`,
    env: "return process.env.GRANTED",
    home: "return process.env.HOME",
  };
  const header = "// @permissions read=./data.txt env=GRANTED deny-env=HOME";

  it.each(["run", "test"] as const)("is denied where nobody can be asked, with the flag: %s", async (way) => {
    const script = place.script("declares.ts", tries, header);
    const file = `declared-${way}.jsonl`;
    const end = await place.mishap(...WAYS[way](script, ["--allow-env=GRANTED,HOME", "--permission-log", file]));
    const data = place.path("data.txt");
    expect(end.stderr).toContain(`asks to read ./data.txt, which is denied; --allow-read=${data} grants it`);
    expect(cameOf(end)).toEqual({
      read: `denied: read of "${data}" was denied: run again with --allow-read=${data}`,
      env: "yes",
      home: expect.stringMatching(/^denied: /),
    });
    expect(place.log(file).map(({ source, action, value }) => [source, action, value])).toEqual([
      ["flags", "grant", "GRANTED"],
      ["flags", "grant", "HOME"],
      ["prompt", "deny", data],
      ["broker", "deny", data],
      ["broker", "deny", "HOME"],
    ]);
  });

  it.each(["run", "test"] as const)("is asked for on a terminal, before it starts: %s", async (way) => {
    const script = place.script("declares.ts", tries, header);
    const onTerminal = (input: string, ...flags: string[]): Promise<Finished> => {
      const words = [process.execPath, MISHAP, ...WAYS[way](script, flags)].map((word) => `'${word}'`).join(" ");
      const command = `cd ${place.folder} && ${words}`;
      return start("script", ["-qec", command, "/dev/null"], { input, env: { GRANTED: "yes" } }).finished;
    };
    const end = await onTerminal("y\nn\n");
    expect(end.stdout).toContain("asks to read ./data.txt  [y]es  [n]o  [A]ll of read ");
    expect(end.stdout).toContain("asks to know the variable GRANTED  [y]es");
    expect(cameOf(end)).toMatchObject({ read: "data", env: expect.stringMatching(/^denied: /) });
    const quiet = await onTerminal("", "--no-prompt");
    expect(quiet.stdout).not.toContain("[y]es");
    expect(quiet.stdout).toContain("which is denied");
  });

  it("may be granted by a file", async () => {
    const script = place.script("declares.ts", tries, header);
    place.file("permissions.yaml", "allow:\n  read: [./data.txt]\n  env: true\n");
    expect(await place.came("test", script, ["--script-config", "permissions.yaml"])).toEqual({
      read: "data",
      env: "yes",
      home: expect.stringMatching(/^denied: /),
    });
  });

  it("is wrong usage where it is wrong, and so is permitting no script anything", async () => {
    const script = place.script("wrong.ts", {}, "// @permissions red=./data.txt");
    expect(await place.mishap("script", "test", script)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(
        'wrong.ts:1: "red=./data.txt": there is no permission "red"; the nearest is read',
      ),
    });
    expect(await place.mishap("run", "--allow-read", "--", "true")).toMatchObject({
      code: 2,
      stderr: "mishap: --allow-read: says what a script may do, and --script brownout which one\n",
    });
    expect(await place.mishap("run", "--no-prompt", "--", "true")).toMatchObject({ code: 2 });
    expect(await place.mishap("run", "--script", script, "--permission-log", "none/log", "--", "true")).toMatchObject({
      code: 2,
    });
  });
});

it("what was granted is there again after the host died, or was ended for asking what is no question", async () => {
  const [user] = users();
  if (user === undefined) return;
  const place = new Place(user);
  const script = place.file(
    "dies.ts",
    `import { readFileSync, writeSync } from "node:fs";
import { policy } from "mishap/script";
const ends: Record<string, () => unknown> = {
  "10.0.0.1": () => process.kill(process.pid, "SIGKILL"),
  "10.0.0.3": () => writeSync(4, "nonsense\\n") && readFileSync("data.txt"),
};
export default policy({
  name: "dies",
  onFlow: ({ peer }, ctx) => {
    ends[peer.address]?.();
    ctx.log(peer.address, process.env.GRANTED, readFileSync("late.txt", "utf8"));
    return undefined;
  },
});
`,
  );
  const permissions = ["--allow-env=GRANTED", "--allow-read=late.txt"];
  const running = place.mishap("script", "test", script, "--flows", "4", ...permissions);
  await new Promise((resolve) => setTimeout(resolve, 100));
  place.file("late.txt", "late"); // after the start or not: the broker's, or the kernel's
  const { code, stdout, stderr } = await running;
  expect(code).toBe(1);
  for (const address of ["10.0.0.2", "10.0.0.4"]) expect(stdout).toContain(`log: ${address} yes late`);
  expect(stderr).toContain("the script's host asked for what is no question");
  expect(stderr.match(/the script host died and is started again/g)?.length).toBe(2);
  expect(stderr).not.toContain("Warning");
});

it("nothing is left: neither files nor programs that the script started", async () => {
  const [user] = users();
  if (user === undefined) return;
  const place = new Place(user);
  const project = freshProject();
  const script = place.script("leaves.ts", {
    run: `(await load("node:child_process")).spawn("/bin/sleep", ["7654.25"], { stdio: "ignore", detached: false })`,
  });
  for (const way of ["run", "test"] as const) {
    const flags = ["--allow-run=sleep", ...(way === "run" ? ["--project", project] : [])];
    expect(await place.came(way, script, flags)).toEqual({ run: expect.anything() });
    expect(segmentFiles(project)).toEqual([]);
    const commands = readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map((pid) => {
        try {
          return readFileSync(`/proc/${pid}/cmdline`, "latin1");
        } catch {
          return "";
        }
      });
    expect(commands.filter((command) => command.includes("7654.25"))).toEqual([]);
  }
});
