// The folder of escapes, test/programs/escapes, against the launcher: each of them gets through bare, so that its test can fail,
// and is stopped in the jail; and each permission opens what it names and nothing else.
import { readdirSync, readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { Stage, users } from "./support/jail.js";

const STOPPED =
  /^stopped (EACCES|EPERM|ENOSYS|EBADF|EINVAL|ECONNREFUSED|ENOTFOUND|UVWASI_EACCES|ERR_DLOPEN_FAILED|ERR_SYSTEM_ERROR)\n$/;

/** The loader may be executed, as the kernel does for every program; what it was to load, it cannot read. */
const LOADER = /echo: cannot open shared object file: Permission denied/;

const HOGS = ["heap", "buffers"];
const NODE = readdirSync(fileURLToPath(new URL("../programs/escapes/", import.meta.url)))
  .filter((file) => file.endsWith(".mjs") && file !== "attempt.mjs")
  .map((file) => file.replace(".mjs", ""))
  .filter((name) => !HOGS.includes(name))
  .sort();

const RAW = [
  ..."proc_mem others_mem attach vm_read pidfd own_signal thread_signal queue_signal group_signal limits affinity".split(
    " ",
  ),
  ..."uring abstract raw_socket pair fast_open sysv sysv_queue posix_shm memory_file exec_other exec_loader".split(" "),
  ..."forking cloning chmoding chmodat2 chowning attribute truncating truncating_open open2 handle linking".split(" "),
  ..."watching namespaces keys domain survive session shared_memory growing_memory unknown x32 i386 capabilities".split(
    " ",
  ),
];

/** What some machines or users have not, even bare. */
const MAY_LACK = new Set([
  "attach",
  "vm_read",
  "others_mem",
  "uring",
  "attribute",
  "chmodat2",
  "namespaces",
  "unknown",
  "x32",
]);
for (const name of ["i386", "capabilities", "handle", "read-others-environ", "keys"]) MAY_LACK.add(name);

const stages = new Map<string, Stage>();
async function stageOf(user: ReturnType<typeof users>[number]): Promise<Stage> {
  const stage = stages.get(user.name) ?? (await Stage.for(user));
  stages.set(user.name, stage);
  return stage;
}
const everyone = await Promise.all(users().map((user) => stageOf(user)));

describe.each(everyone.map((stage) => [stage.user.name, stage] as const))("as %s", (_, stage) => {
  const escapes: [string, string[]][] = [
    ...NODE.map((name): [string, string[]] => [name, stage.escape(name)]),
    ...RAW.map((name): [string, string[]] => [name, stage.rawEscape(name)]),
  ];

  it.for(escapes)("%s is stopped", async ([name, command], { skip }) => {
    const endRace = name === "symlink-race" ? stage.race() : () => undefined;
    stage.restore();
    const bare = await stage.bare(...command);
    stage.restore();
    const jailed = await stage.jailed([], ...command);
    endRace();
    if (name === "exec_loader") expect([jailed.stdout, jailed.stderr]).toEqual(["", expect.stringMatching(LOADER)]);
    else expect(jailed.stdout).toMatch(STOPPED);
    const lacks = MAY_LACK.has(name) && !bare.stdout.startsWith("ESCAPED");
    skip(lacks, `${name} fails outside the jail too, as ${stage.user.name}: ${bare.stdout.trim()}`);
    expect(bare.stdout).toMatch(/^ESCAPED /);
  });
});

it("drives every case of the C program", async () => {
  const [stage] = everyone;
  const listed = await stage?.bare(stage.raw);
  expect(listed?.stdout.trim().split("\n").sort()).toEqual([...RAW].sort());
});

describe.each(everyone.map((stage) => [stage.user.name, stage] as const))("permissions, as %s", (_, stage) => {
  /** Which of some escapes get through with what is granted. */
  async function through(granted: readonly string[], names: readonly string[]): Promise<string[]> {
    stage.restore();
    const opened: string[] = [];
    for (const name of names) {
      const { stdout } = await stage.jailed(granted, ...stage.escape(name));
      if (stdout.startsWith("ESCAPED")) opened.push(name);
    }
    stage.restore();
    return opened;
  }
  const secret = String(stage.target.secret);
  const SAMPLE = [
    ..."read-sync read-json-import read-directory read-own-environ read-others-environ".split(" "),
    ..."write-sync write-make write-chmod write-link write-remove".split(" "),
    ..."spawn exec tcp listen unix kill dlopen inherited".split(" "),
  ];

  it("--read of a file opens that file only", async () => {
    expect(await through(["--read", secret], SAMPLE)).toEqual(["read-sync"]);
  });

  it("--read of a folder opens what is beneath", async () => {
    const opened = ["read-sync", "read-json-import", "read-directory", "dlopen"];
    expect(await through(["--read", stage.secrets], SAMPLE)).toEqual(opened);
  });

  it("--write of a file opens that file only, for writing", async () => {
    expect(await through(["--write", secret], SAMPLE)).toEqual(["write-sync"]);
  });

  it("--write of a folder opens files beneath, and no links", async () => {
    expect(await through(["--write", stage.secrets], SAMPLE)).toEqual(["write-sync", "write-make", "write-remove"]);
  });

  it("--run opens that program only, and what it starts is in the jail too", async () => {
    expect(await through(["--run", "/bin/true"], SAMPLE)).toEqual(["spawn"]);
    expect(await through(["--run", "/bin/sh"], SAMPLE)).toEqual(["exec"]);
    const program = `try { console.log(require("child_process").execFileSync("/bin/cat", [${JSON.stringify(secret)}])) }
      catch (error) { console.log(String(error.stderr)) }`;
    const { stdout } = await stage.jailed(["--run", "/bin/cat"], process.execPath, "-e", program);
    expect(stdout).toMatch(/Permission denied/);
  });

  it("children of a program that may be run are no way to other processes", async () => {
    const opened: string[] = [];
    for (const name of RAW.filter((each) => !["forking", "group_signal"].includes(each))) {
      const { stdout } = await stage.jailed(["--processes"], ...stage.rawEscape(name));
      if (stdout.startsWith("ESCAPED")) opened.push(name);
    }
    expect(opened).toEqual([]);
  });

  it("children end with it, whatever ends it", async () => {
    const program = `
      const { pid } = require("child_process").spawn("/bin/sleep", ["1000"], { stdio: "ignore" });
      console.log(pid);
      setTimeout(() => process.kill(process.pid, "SIGKILL"), 100);`;
    const { code, stdout } = await stage.jailed(["--run", "/bin/sleep"], process.execPath, "-e", program);
    expect(code).toBe("SIGKILL");
    expect(Number(stdout)).toBeGreaterThan(0);
    await expect.poll(() => isAlive(Number(stdout))).toBe(false);
  });

  it("--proc opens what is said of the process itself, not of others", async () => {
    expect(await through(["--proc"], SAMPLE)).toEqual(["read-own-environ"]);
    const { stdout } = await stage.jailed(["--proc"], process.execPath, "-p", "process.memoryUsage().rss > 1e6");
    expect(stdout).toBe("true\n");
  });

  it("--keep-fd keeps that descriptor only", async () => {
    expect(await through(["--keep-fd", "9"], SAMPLE)).toEqual(["inherited"]);
    const open =
      "fs.readdirSync('/proc/self/fd').map((fd) => { try { return fs.readlinkSync('/proc/self/fd/' + fd) } catch {} })";
    const { stdout } = await stage.jailed(
      ["--proc"],
      process.execPath,
      "-p",
      `${open}.includes(${JSON.stringify(secret)})`,
    );
    expect(stdout).toBe("false\n");
  });

  it("a connection that was made outside can be used, and leads nowhere else", async () => {
    const server = createServer((socket) => socket.end("from outside"));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const program = `
      const socket = new (require("net").Socket)({ fd: 3 });
      socket.on("data", (data) => {
        console.log(String(data));
        require("net").connect(${stage.target.port}, "127.0.0.1").on("error", (error) => console.log(error.code));
      });`;
    const { stdout } = await stage.withConnection(server, [], process.execPath, "-e", program);
    server.close();
    expect(stdout).toBe("from outside\nEPERM\n");
  });

  const listen = (then: string): string => `
    const server = require("net").createServer((socket) => { socket.end("from inside"); server.close(); });
    server.on("error", (error) => console.log(error.code)).listen({ fd: 3 }, () => { ${then} });`;

  async function listener(): Promise<Server> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  it("--accept takes connections at a socket that was made outside", async () => {
    const server = await listener();
    const { port } = server.address() as AddressInfo;
    const served = stage.withServer(server, ["--accept"], process.execPath, "-e", listen("console.log('listens')"));
    let text = "";
    for await (const part of connect(port, "127.0.0.1")) text += part;
    expect(text).toBe("from inside");
    expect((await served).stdout).toBe("listens\n");
  });

  it("without it, at none", async () => {
    const refused = await stage.withServer(await listener(), [], process.execPath, "-e", listen(""));
    expect(refused.stdout).toBe("EPERM\n");
  });

  it("--accept opens nothing else: a connection becomes no server, and no socket is made", async () => {
    expect(await through(["--accept"], SAMPLE)).toEqual([]);
    const server = await listener();
    const { stdout } = await stage.withConnection(server, ["--accept"], process.execPath, "-e", listen(""));
    server.close();
    expect(stdout).toBe("EINVAL\n");
    const opened: string[] = [];
    for (const name of ["abstract", "raw_socket", "pair", "fast_open"]) {
      if ((await stage.jailed(["--accept"], ...stage.rawEscape(name))).stdout.startsWith("ESCAPED")) opened.push(name);
    }
    expect(opened).toEqual([]);
  });
});

describe.each(everyone.map((stage) => [stage.user.name, stage] as const))("memory, as %s", (_, stage) => {
  it.each(HOGS)("--memory ends a hog: %s", async (name) => {
    const limit = ["--memory", String(384 << 20)];
    expect((await stage.jailed([], ...stage.escape(name))).stdout).toMatch(/^ESCAPED/);
    const jailed = await stage.jailed(limit, ...stage.escape(name));
    expect(jailed.stdout).not.toContain("ESCAPED");
    expect((await stage.jailed(limit, process.execPath, "-p", "'starts'")).stdout).toBe("starts\n");
  });
});

describe("what cannot be made", () => {
  const [stage] = everyone;
  if (stage === undefined) return;
  const refusals: [string, string[], number, RegExp][] = [
    ["an option that there is not", ["--net"], 125, /an option that there is not; usage/],
    [
      "a path that does not exist",
      ["--read", "/nowhere"],
      125,
      /\/nowhere cannot be granted: No such file or directory/,
    ],
    ["a descriptor that is not open", ["--keep-fd", "77"], 125, /--keep-fd 77 is not open/],
    ["a size that is none", ["--memory", "lots"], 125, /--memory takes a number of bytes/],
  ];
  it.each(refusals)("%s", async (_, options, code, sentence) => {
    const refused = await stage.jailed(options, process.execPath, "-v");
    expect(refused).toMatchObject({ code, stdout: "", stderr: expect.stringMatching(sentence) });
    expect(refused.stderr.trim().split("\n")).toHaveLength(1);
  });

  it("a command that does not exist", async () => {
    const refused = await stage.jailed([], "/nowhere");
    expect(refused).toMatchObject({
      code: 125,
      stderr: "mishap-jail: /nowhere cannot be granted: No such file or directory\n",
    });
  });

  it("a kernel without Landlock needs --unsafe-no-jail, and says what is open", async () => {
    const without = await stage.withoutLandlock();
    const refused = await stage.run([without, stage.launcher, "--", process.execPath, "-v"]);
    expect(refused).toMatchObject({
      code: 125,
      stdout: "",
      stderr: expect.stringMatching(/no Landlock .*--unsafe-no-jail/),
    });
    const command = [without, stage.launcher, "--unsafe-no-jail", "--", ...stage.escape("read-sync")];
    expect(await stage.run(command)).toMatchObject({
      stdout: expect.stringMatching(/^ESCAPED/),
      stderr: expect.stringMatching(/no Landlock on this kernel: every file/),
    });
    const spawned = await stage.run([without, stage.launcher, "--unsafe-no-jail", "--", ...stage.escape("spawn")]);
    expect(spawned.stdout).toBe("stopped EPERM\n");
  });
});

it("the jailed process dies with its caller", async () => {
  const [stage] = everyone;
  if (stage === undefined) return;
  const program = `const child = require("child_process").spawn(${JSON.stringify(stage.launcher)},
    ["--", process.execPath, "-e", "console.log(process.pid); for (;;);"], { stdio: ["ignore", "pipe", "inherit"] });
    child.stdout.once("data", (data) => { console.log(String(data)); process.kill(process.pid, "SIGKILL"); });`;
  const { stdout } = await stage.bare(process.execPath, "-e", program);
  await expect.poll(() => isAlive(Number(stdout))).toBe(false);
});

/** Whether a process runs; a dead one that nobody waited for does not. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
