// Programs inside native/jail's launcher and outside of it, and what they try to reach: files, servers and a process of the same user.
import { type ChildProcess, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";
import { compile } from "./programs.js";

const LAUNCHER = fileURLToPath(new URL("../../../build/Release/mishap-jail", import.meta.url));
const ADDON = fileURLToPath(new URL("../../../build/Release/mishap.node", import.meta.url));
const ESCAPES = fileURLToPath(new URL("../../programs/escapes/", import.meta.url));

/** Node's ending, and what the program said. */
export interface Outcome {
  readonly code: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

export interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

const NOBODY = 65534;

/** Whoever runs the tests; and, where that is root, an ordinary user too. */
export function users(): readonly User[] {
  const uid = process.getuid?.() ?? 0;
  const me = { name: uid === 0 ? "root" : "the user", uid, gid: process.getgid?.() ?? 0 };
  return uid === 0 ? [me, { name: "nobody", uid: NOBODY, gid: NOBODY }] : [me];
}

/** A folder that a user owns, with the launcher, the escapes, and what they try to reach. */
export class Stage {
  readonly folder = mkdtempSync(join(tmpdir(), "mishap-jail-"));
  readonly launcher = join(this.folder, "mishap-jail");
  /** Everything here is granted to each escape: the programs, and a link that leads out. */
  readonly programs = join(this.folder, "escapes");
  readonly secrets = join(this.folder, "secrets");
  readonly target: Readonly<Record<string, string | number>>;
  raw = "";
  private readonly victim: ChildProcess;

  private constructor(
    readonly user: User,
    ports: { port: number; dns_port: number },
  ) {
    const secret = join(this.secrets, "secret");
    this.target = {
      secret,
      folder: this.secrets,
      spare: join(this.secrets, "spare"),
      module: join(this.secrets, "secret.mjs"),
      json: join(this.secrets, "secret.json"),
      addon: join(this.secrets, "addon.node"),
      socket: join(this.secrets, "socket"),
      link: join(this.programs, "link"),
      racing: join(this.programs, "racing"),
      fd: 9,
      ...ports,
    };
    copyFileSync(LAUNCHER, this.launcher);
    cpSync(ESCAPES, this.programs, { recursive: true });
    mkdirSync(this.secrets);
    writeFileSync(join(this.programs, "granted"), "granted");
    symlinkSync(secret, join(this.programs, "link"));
    writeFileSync(join(this.secrets, "secret.mjs"), 'export default "secret";\n');
    writeFileSync(join(this.secrets, "secret.json"), '{ "secret": "secret" }\n');
    copyFileSync(ADDON, join(this.secrets, "addon.node"));
    this.restore();
    this.own(this.folder);
    // A life of its own, so that its memory and environment are the same user's.
    this.victim = spawn("/bin/sleep", ["1000"], {
      uid: user.uid,
      gid: user.gid,
      stdio: "ignore",
      env: { SECRET: "secret" },
    });
    Object.assign(this.target, { pid: this.victim.pid ?? 0 });
  }

  /** What escapes may have used up outside the jail. */
  restore(): void {
    for (const name of ["secret", "spare"]) {
      writeFileSync(join(this.secrets, name), "a secret, of some length");
      chmodSync(join(this.secrets, name), 0o600);
      chownSync(join(this.secrets, name), this.user.uid, this.user.gid);
    }
  }

  private own(path: string): void {
    chownSync(path, this.user.uid, this.user.gid);
    chmodSync(path, 0o755);
    for (const each of readdirSync(path, { withFileTypes: true })) {
      if (each.isDirectory()) this.own(join(path, each.name));
      else if (!each.isSymbolicLink()) chownSync(join(path, each.name), this.user.uid, this.user.gid);
    }
  }

  static async for(user: User): Promise<Stage> {
    const server = createServer((socket) => {
      socket.on("error", () => socket.destroy());
      socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret"));
    });
    const names = createSocket("udp4");
    names.on("message", (query, from) => {
      const header = Buffer.from([query[0] ?? 0, query[1] ?? 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
      const answer = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
      const question = query.subarray(12, query.indexOf(0, 12) + 5);
      names.send(Buffer.concat([header, question, answer]), from.port, from.address);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    await new Promise<void>((resolve) => names.bind(0, "127.0.0.1", resolve));
    const stage = new Stage(user, { port: (server.address() as AddressInfo).port, dns_port: names.address().port });
    const local = createServer((socket) => socket.end());
    await new Promise<void>((resolve) => local.listen(stage.target.socket, resolve));
    chownSync(join(stage.secrets, "socket"), user.uid, user.gid);
    const abstract = createServer((socket) => socket.end());
    await new Promise<void>((resolve) => abstract.listen(`\0mishap-escape-${stage.target.pid}`, resolve));
    stage.raw = await compile(stage.folder, "escapes/raw.c");
    afterAll(() => {
      stage.victim.kill();
      for (const each of [server, local, abstract]) each.close();
      names.close();
      rmSync(stage.folder, { recursive: true, force: true });
    });
    return stage;
  }

  /** Turns the racing name from what is granted to what is not and back, until it is told to stop. */
  race(): () => void {
    const next = join(this.programs, "next");
    const turn = `for (;;) for (const to of [process.argv[1], process.argv[2]]) {
      try { fs.unlinkSync(process.argv[3]); } catch {}
      fs.symlinkSync(to, process.argv[3]);
      fs.renameSync(process.argv[3], process.argv[4]);
    }`;
    const args = [
      "-e",
      turn,
      join(this.programs, "granted"),
      String(this.target.secret),
      next,
      String(this.target.racing),
    ];
    symlinkSync(join(this.programs, "granted"), next);
    renameSync(next, String(this.target.racing));
    const racer = spawn(process.execPath, args, { uid: this.user.uid, gid: this.user.gid, stdio: "ignore" });
    return () => void racer.kill("SIGKILL");
  }

  /** Runs a command bare. */
  bare(...command: string[]): Promise<Outcome> {
    return this.run(command);
  }

  /** Runs a command in the jail; the programs' folder is granted besides what is asked for. */
  jailed(granted: readonly string[], ...command: string[]): Promise<Outcome> {
    return this.run([this.launcher, "--read", this.programs, ...granted, "--", ...command]);
  }

  /** Runs a command in the jail with a connection to a server as descriptor 3, and nothing else of the network. */
  async withConnection(server: Server, granted: readonly string[], ...command: string[]): Promise<Outcome> {
    const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
    await new Promise((resolve) => socket.once("connect", resolve));
    const child = this.withDescriptor(socket, granted, command);
    socket.destroy();
    return outcomeOf(child);
  }

  /** Runs a command in the jail with a server's socket, which nobody else accepts at, as descriptor 3. */
  withServer(server: Server, granted: readonly string[], ...command: string[]): Promise<Outcome> {
    const { _handle } = server as unknown as { _handle: { fd: number } };
    const child = this.withDescriptor(_handle.fd, granted, command);
    server.close();
    return outcomeOf(child);
  }

  private withDescriptor(descriptor: Socket | number, granted: readonly string[], command: readonly string[]) {
    const { launcher, user } = this;
    return spawn(launcher, ["--keep-fd", "3", ...granted, "--", ...command], {
      uid: user.uid,
      gid: user.gid,
      stdio: ["ignore", "pipe", "pipe", descriptor],
      env: {},
      cwd: "/",
    });
  }

  /** The path of a program that executes its arguments on a kernel without Landlock. */
  withoutLandlock(): Promise<string> {
    return compile(this.folder, "escapes/no-landlock.c");
  }

  /** Node with one of the escapes. */
  escape(name: string, overrides: Readonly<Record<string, string | number>> = {}): string[] {
    return [process.execPath, join(this.programs, `${name}.mjs`), JSON.stringify({ ...this.target, ...overrides })];
  }

  /** The C program with one of its escapes. */
  rawEscape(name: string): string[] {
    return [this.raw, name, String(this.target.pid), String(this.target.secret), this.secrets];
  }

  /** Runs a command as the user, with a clean environment; the secret is open as descriptor 9. */
  run(command: readonly string[]): Promise<Outcome> {
    const [program = "", ...args] = command;
    const secret = openSync(String(this.target.secret), "r");
    const stdio = ["ignore", "pipe", "pipe", ...Array<"ignore">(6).fill("ignore"), secret] as const;
    const child = spawn(program, args, {
      uid: this.user.uid,
      gid: this.user.gid,
      stdio: [...stdio],
      env: {},
      cwd: "/",
    });
    closeSync(secret);
    return outcomeOf(child);
  }
}

function outcomeOf(child: ChildProcess): Promise<Outcome> {
  const text = { stdout: "", stderr: "" };
  child.stdout?.on("data", (data) => {
    text.stdout += data;
  });
  child.stderr?.on("data", (data) => {
    text.stderr += data;
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code: code ?? signal ?? "", ...text }));
  });
}
