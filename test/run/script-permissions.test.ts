// What a script sees of its permissions, with the broker beside it: a program that stands for the script's host, in no
// jail, so that what works here works through the broker only where a test says so.
import { execFileSync, spawn } from "node:child_process";
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect, type Server, Socket } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PermissionLog, type PermissionLogEntry, permissionLogEntry } from "../../src/script/audit.js";
import { type BrokerOptions, serveBroker } from "../../src/script/broker.js";
import { resolvePermissions } from "../../src/script/permissions.js";
import { fromFlags } from "../../src/script/written.js";
import { native } from "../../src/segment/native.js";
import { scratchFolder } from "./cli-harness.js";

const PROGRAM = fileURLToPath(new URL("../programs/script-permissions.mjs", import.meta.url));
const folder = scratchFolder();
const servers: Server[] = [];
let granted = 0;
let other = 0;

beforeAll(async () => {
  const serve = (host: string, port: number): Promise<number> => {
    const server = createServer((_, answer) => answer.end("hello"));
    servers.push(server);
    return new Promise((ready) => server.listen(port, host, () => ready((server.address() as AddressInfo).port)));
  };
  granted = await serve("127.0.0.1", 0);
  await serve("::1", granted);
  other = await serve("127.0.0.1", 0);
});
afterAll(() => {
  for (const server of servers) server.close();
});

interface Outcome {
  readonly value?: unknown;
  readonly error?: string;
  readonly code?: string;
  readonly message?: string;
}

let runs = 0;

/** Runs code with permissions; the log is what the broker wrote meanwhile. */
async function inside(
  code: string,
  flags: readonly string[],
  options: { closed?: readonly string[]; environment?: BrokerOptions["environment"] } = {},
): Promise<{ outcome: Outcome; log: PermissionLogEntry[] }> {
  const permissions = resolvePermissions([fromFlags(flags)], { cwd: folder, searchPath: process.env.PATH ?? "" });
  const file = join(folder, `log-${runs++}.jsonl`);
  const log = new PermissionLog(file);
  const [ours, theirs] = native.socketPair();
  const broker = serveBroker(ours, { permissions, script: "test.ts", log, environment: options.environment ?? {} });
  const env = { PATH: process.env.PATH, JAIL: options.closed?.join(" "), GRANTED: "yes", SECRET: "no" };
  const child = spawn(process.execPath, [PROGRAM], { env, stdio: ["pipe", "pipe", "inherit", "ignore", theirs] });
  child.stdin?.end(code);
  let text = "";
  child.stdout?.on("data", (data) => {
    text += data;
  });
  await new Promise((resolve) => child.once("close", resolve));
  closeSync(theirs);
  expect(await broker.ended).toBeUndefined();
  log.close();
  const lines = readFileSync(file, "utf8").trim().split("\n");
  const entries = lines.filter((line) => line !== "").map((line) => permissionLogEntry.parse(JSON.parse(line)));
  return { outcome: JSON.parse(text) as Outcome, log: entries };
}

const WAYS: readonly [name: string, code: (host: string, port: number) => string][] = [
  ["fetch", (host, port) => `return (await fetch("http://${host}:${port}/")).text()`],
  [
    "http",
    (host, port) => `const { get } = await load("node:http");
      const answer = await new Promise((ok, no) => get("http://${host}:${port}/", ok).on("error", no));
      let text = ""; for await (const part of answer) text += part; return text`,
  ],
  [
    "net",
    (host, port) => `const { connect } = await load("node:net");
      const socket = connect(${port}, "${host.replace(/[[\]]/g, "")}");
      socket.end("GET / HTTP/1.0\\r\\n\\r\\n");
      let text = ""; for await (const part of socket) text += part; return text.slice(-5)`,
  ],
];
const HOSTS = ["127.0.0.1", "[::1]", "localhost"];

describe("two servers, one granted", () => {
  const pairs = WAYS.flatMap(([way, code]) => HOSTS.map((host) => [way, host, code] as const));

  it.each(pairs)("%s reaches %s as granted", async (_way, host, code) => {
    const { outcome, log } = await inside(code(host, granted), [`--allow-net=${host}:${granted}`]);
    expect(outcome).toEqual({ value: "hello" });
    expect(log).toContainEqual(
      expect.objectContaining({ source: "broker", action: "grant", permission: "net", value: `${host}:${granted}` }),
    );
  });

  it.each(WAYS)("%s does not reach the other one", async (_way, code) => {
    const { outcome, log } = await inside(code("127.0.0.1", other), [`--allow-net=127.0.0.1:${granted}`]);
    expect(outcome).toMatchObject({ error: "PermissionDenied" });
    expect(outcome.message).toContain(`run again with --allow-net=127.0.0.1:${other}`);
    expect(log).toEqual([
      expect.objectContaining({ action: "deny", permission: "net", value: `127.0.0.1:${other}`, script: "test.ts" }),
    ]);
  });

  it("a host that is none is an error like any other", async () => {
    const code = `const { connect } = await load("node:net");
      await new Promise((ok, no) => connect(80, "a".repeat(300), ok).on("error", no))`;
    expect((await inside(code, ["--allow-net"])).outcome).toMatchObject({ error: "Error", code: "EINVAL" });
  });

  it("a granted name does not lead to a denied address", async () => {
    const code = WAYS[0]?.[1]("localhost", granted) ?? "";
    const flags = [`--allow-net=localhost`, `--deny-net=127.0.0.1,[::1]`];
    expect((await inside(code, flags)).outcome).toMatchObject({ error: "PermissionDenied" });
  });

  it("the unspecified address is this machine", async () => {
    const code = WAYS[0]?.[1]("0.0.0.0", other) ?? "";
    expect((await inside(code, ["--allow-net", "--deny-net=127.0.0.1"])).outcome.error).toBe("PermissionDenied");
  });

  it("a refused connection is what it always is", async () => {
    const code = `const { connect } = await load("node:net");
      await new Promise((ok, no) => connect(1, "127.0.0.1", ok).on("error", no))`;
    expect((await inside(code, ["--allow-net"])).outcome).toMatchObject({ error: "Error", code: "ECONNREFUSED" });
  });
});

describe("TLS", () => {
  it("goes through the broker too", async () => {
    const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
    const words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost";
    execFileSync(
      "openssl",
      [...words.split(" "), "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
      {
        stdio: "ignore",
      },
    );
    const pem = readFileSync(cert, "utf8");
    const server = createTlsServer({ key: readFileSync(key), cert: pem }, (socket) => socket.end("secret"));
    servers.push(server);
    await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
    const { port } = server.address() as AddressInfo;
    const code = `const { connect } = await load("node:tls");
      let text = "";
      for await (const part of connect({ host: "localhost", port: ${port}, ca: ${JSON.stringify(pem)} })) text += part;
      return text`;
    expect((await inside(code, [`--allow-net=localhost:${port}`])).outcome).toEqual({ value: "secret" });
    expect((await inside(code, [`--allow-net=localhost:${port + 1}`])).outcome.error).toBe("PermissionDenied");
  });
});

describe("listening and names", () => {
  it("a granted port is listened at", async () => {
    const code = `const { createServer, connect } = await load("node:net");
      const server = createServer((socket) => socket.end("served"));
      await new Promise((ok, no) => server.once("error", no).listen(0, "127.0.0.1", ok));
      const { port } = server.address();
      let text = ""; for await (const part of connect(port, "127.0.0.1")) text += part; return text`;
    expect((await inside(code, ["--allow-net=127.0.0.1"])).outcome).toEqual({ value: "served" });
    expect((await inside(code, ["--allow-net=[::1]"])).outcome).toMatchObject({ error: "PermissionDenied" });
  });

  it("granted names are looked up", async () => {
    const code = `const dns = await load("node:dns");
      const back = await new Promise((ok, no) => dns.lookup("localhost", { family: 4 }, (e, a) => (e ? no(e) : ok(a))));
      return [back, (await dns.promises.lookup("localhost", { all: true })).length > 0]`;
    expect((await inside(code, ["--allow-net=localhost:80"])).outcome).toEqual({ value: ["127.0.0.1", true] });
    expect((await inside(code, ["--allow-net=b"])).outcome.message).toContain("--allow-net=localhost");
  });
});

describe("files", () => {
  const late = join(folder, "late.txt");
  const READS = [
    `const fs = await load("node:fs"); return fs.readFileSync(PATH, "utf8")`,
    `const fs = await load("node:fs/promises"); return fs.readFile(PATH, "utf8")`,
    `const fs = await load("node:fs");
     return new Promise((ok, no) => fs.readFile(PATH, "utf8", (e, text) => (e ? no(e) : ok(text))))`,
    `const fs = await load("node:fs");
     let text = ""; for await (const part of fs.createReadStream(PATH)) text += part; return text`,
  ].map((code) => code.replace("PATH", JSON.stringify(late)));

  it.each(READS)("what was made after the start comes from the broker: %s", async (code) => {
    writeFileSync(late, "late");
    const { outcome, log } = await inside(code, ["--allow-read=./late.txt"], { closed: [late] });
    expect(outcome).toEqual({ value: "late" });
    expect(log).toEqual([expect.objectContaining({ source: "broker", action: "grant", value: late })]);
  });

  it.each(READS)("what was not granted is denied: %s", async (code) => {
    writeFileSync(late, "late");
    const { outcome, log } = await inside(code, ["--allow-read=./other"], { closed: [late] });
    expect(outcome).toEqual({
      error: "PermissionDenied",
      code: "EACCES",
      message: `read of "${late}" was denied: run again with --allow-read=${late}`,
    });
    expect(log).toEqual([
      expect.objectContaining({ source: "broker", action: "deny", permission: "read", value: late }),
    ]);
  });

  it("a file is written where that is granted", async () => {
    const made = join(folder, "made.txt");
    const code = `const fs = await load("node:fs"); fs.writeFileSync(${JSON.stringify(made)}, "made")`;
    expect((await inside(code, ["--allow-read=./made.txt"], { closed: [made] })).outcome.message).toContain(
      `run again with --allow-write=${made}`,
    );
    expect((await inside(code, ["--allow-write=./made.txt"], { closed: [made] })).outcome).toEqual({});
    expect(readFileSync(made, "utf8")).toBe("made");
  });

  it("a symlink in a granted folder leads nowhere else", async () => {
    mkdirSync(join(folder, "open"), { recursive: true });
    const link = join(folder, "open/link");
    symlinkSync("/etc/passwd", link);
    const code = `const fs = await load("node:fs"); return fs.readFileSync(${JSON.stringify(link)}, "utf8")`;
    const { outcome } = await inside(code, ["--allow-read=./open"], { closed: [link] });
    expect(outcome.message).toBe('read of "/etc/passwd" was denied: run again with --allow-read=/etc/passwd');
  });

  it("a path that changes while it is opened leads nowhere else", async () => {
    const raced = join(folder, "raced");
    mkdirSync(raced);
    const [path, link, file] = ["now", "link", "file"].map((name) => join(raced, name));
    symlinkSync("/etc/passwd", link ?? "");
    writeFileSync(file ?? "", "ours");
    const swap = `const fs = require("node:fs"); const [path, link, file] = ${JSON.stringify([path, link, file])};
      process.stdout.write("ready");
      for (;;) for (const from of [file, link]) {
        try { fs.unlinkSync(path); } catch {}
        from === file ? fs.linkSync(file, path) : fs.symlinkSync("/etc/passwd", path);
      }`;
    const swapper = spawn(process.execPath, ["-e", swap], { stdio: ["ignore", "pipe", "ignore"] });
    try {
      await new Promise((resolve) => swapper.stdout.once("data", resolve));
      const code = `const fs = await load("node:fs"); const seen = new Set();
        for (let at = 0; at < 800; at++) {
          try { seen.add(fs.readFileSync(${JSON.stringify(path)}, "utf8")); } catch (error) { seen.add(error.name); }
        }
        return [...seen]`;
      const { outcome } = await inside(code, ["--allow-read=./raced"], { closed: [path ?? ""] });
      const allowed = new Set(["ours", "PermissionDenied", "Error"]);
      expect((outcome.value as string[]).filter((each) => !allowed.has(each))).toEqual([]);
    } finally {
      swapper.kill("SIGKILL");
    }
  });

  it("what the kernel refuses and no flag would change is as it was", async () => {
    const code = `const fs = await load("node:fs"); return fs.readdirSync(${JSON.stringify(folder)})`;
    expect((await inside(code, ["--allow-read=."], { closed: [folder] })).outcome).toMatchObject({ error: "Error" });
    const { outcome, log } = await inside(code, [], { closed: [folder] });
    expect(outcome).toMatchObject({ error: "PermissionDenied", code: "EACCES" });
    expect(log).toEqual([expect.objectContaining({ source: "script", action: "deny", value: folder })]);
  });

  it.each(["/proc/self/environ", "/dev/shm/mishap-0-a-00000000", "/dev/null"])(
    "%s is never handed out",
    async (path) => {
      const code = `const fs = await load("node:fs"); return fs.readFileSync(${JSON.stringify(path)}, "utf8")`;
      const { outcome } = await inside(code, ["--allow-read"], { closed: [path] });
      expect(outcome.error).toBe("PermissionDenied");
    },
  );
});

describe("programs", () => {
  // The kernel refuses to execute it, as it does with anything in the jail.
  it.each([
    `const { spawn } = await load("node:child_process");
     await new Promise((ok, no) => spawn("/etc/passwd").on("error", no).on("exit", ok))`,
    `const { execFileSync } = await load("node:child_process"); execFileSync("/etc/passwd")`,
    `const { spawnSync } = await load("node:child_process"); throw spawnSync("/etc/passwd").error`,
  ])("that are refused are denied: %s", async (code) => {
    const { outcome, log } = await inside(code, []);
    expect(outcome).toMatchObject({ error: "PermissionDenied", code: "EACCES" });
    expect(outcome.message).toContain("run again with --allow-run=/etc/passwd");
    expect(log).toEqual([expect.objectContaining({ source: "script", action: "deny", permission: "run" })]);
  });

  it("that run are as they were", async () => {
    const code = `const { execFileSync } = await load("node:child_process"); return execFileSync("true").length`;
    expect((await inside(code, ["--allow-run=true"])).outcome).toEqual({ value: 0 });
  });
});

describe("lines with descriptors", () => {
  it("have bounds, and nobody waits for who does not read", () => {
    const [one, other] = native.socketPair();
    expect(() => native.reply(one, "a\nb")).toThrow(expect.objectContaining({ code: "EMSGSIZE" }));
    expect(() => native.request(one, "x".repeat(65_536))).toThrow(expect.objectContaining({ code: "EMSGSIZE" }));
    const flood = (): void => {
      for (;;) native.reply(one, "x".repeat(60_000));
    };
    expect(flood).toThrow(expect.objectContaining({ code: "EAGAIN" }));
    closeSync(one);
    closeSync(other);
    expect(() => native.request(other, "x")).toThrow(expect.objectContaining({ code: "EBADF" }));
  });

  it("carry one, and end with an error when the other end is gone or says too much", () => {
    const [one, other] = native.socketPair();
    const file = openSync(PROGRAM, "r");
    native.reply(one, "ä", file);
    const { text, descriptor } = native.request(other, "hello");
    expect(text).toBe("ä");
    expect(fstatSync(descriptor ?? -1).ino).toBe(fstatSync(file).ino);
    for (const fd of [file, descriptor ?? -1]) closeSync(fd);
    writeSync(one, "a\nb\n");
    expect(() => native.request(other, "hello")).toThrow(expect.objectContaining({ code: "EPROTO" }));
    closeSync(one);
    expect(() => native.request(other, "hello")).toThrow(expect.objectContaining({ code: "EPIPE" }));
    closeSync(other);
  });
});

describe("variables", () => {
  it("that were granted exist, and no others", async () => {
    const code = `return [process.env.GRANTED, Object.keys(process.env), "SECRET" in process.env, JSON.stringify(process.env)]`;
    expect((await inside(code, [])).outcome).toEqual({ value: ["yes", ["GRANTED"], false, '{"GRANTED":"yes"}'] });
  });

  it("can be set, copied and handed on", async () => {
    const code = `process.env.GRANTED = "changed"; process.env.OWN = 1; delete process.env.GRANTED;
      const { execFileSync } = await load("node:child_process");
      return [{ ...process.env }, String(execFileSync("/usr/bin/env"))]`;
    expect((await inside(code, ["--allow-run=env"])).outcome).toEqual({ value: [{ OWN: "1" }, "OWN=1\n"] });
  });

  it("that were not are denied when they are read", async () => {
    const { outcome, log } = await inside("return process.env.SECRET", []);
    expect(outcome).toMatchObject({ error: "PermissionDenied" });
    expect(outcome.message).toContain("run again with --allow-env=SECRET");
    expect(log).toEqual([expect.objectContaining({ source: "broker", action: "deny", permission: "env" })]);
  });
});

describe("the system", () => {
  const code = `const os = await load("node:os"); return [os.hostname(), typeof os.userInfo().uid, os.cpus().length > 0]`;
  it("is known where that is granted", async () => {
    expect((await inside(code, ["--allow-sys"])).outcome).toEqual({ value: [hostname(), "number", true] });
    const { outcome, log } = await inside(code, []);
    expect(outcome.message).toBe('system information "hostname" was denied: run again with --allow-sys');
    expect(log).toEqual([expect.objectContaining({ action: "deny", permission: "sys", value: "hostname" })]);
  });
});

describe("what is no question", () => {
  const conversation = async (bytes: string): Promise<string | undefined> => {
    const [ours, theirs] = native.socketPair();
    const permissions = resolvePermissions([], { cwd: folder, searchPath: "" });
    const broker = serveBroker(ours, { permissions, script: "test.ts", log: new PermissionLog() });
    writeSync(theirs, bytes);
    const reason = await broker.ended;
    closeSync(theirs);
    return reason;
  };

  it.each(["hello\n", "{}\n", '{"ask":"open","path":"etc","flags":"r"}\n', '{"ask":"connect","host":"a","port":-1}\n'])(
    "%j ends the conversation",
    async (bytes) => {
      expect(await conversation(bytes)).toContain("no question");
    },
  );

  it("nor is what does not end", async () => {
    expect(await conversation("x".repeat(20_000))).toContain("more than a question can be");
  });

  it("a flood is slowed down and holds nobody else up", async () => {
    const [ours, theirs] = native.socketPair();
    const permissions = resolvePermissions([], { cwd: folder, searchPath: "" });
    const broker = serveBroker(ours, { permissions, script: "test.ts", log: new PermissionLog() });
    const began = performance.now();
    writeSync(theirs, '{"ask":"env","name":"A"}\n'.repeat(250));
    await new Promise((resolve) => connect(granted, "127.0.0.1", () => resolve(undefined)).unref());
    expect(performance.now() - began).toBeLessThan(1000);
    const socket = new Socket({ fd: theirs });
    let answers = 0;
    for await (const part of socket as AsyncIterable<Buffer>) {
      answers += part.toString().split("\n").length - 1;
      if (answers === 250) break; // which closes it
    }
    expect(performance.now() - began).toBeGreaterThan(150);
    expect(await broker.ended).toBeUndefined();
  });
});
