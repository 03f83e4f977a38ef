/**
 * The broker: outside the jail, it does for a script what the jail's kernel rules cannot tell apart, host by host and
 * file by file, and hands the open descriptor in. What is granted is looked up by name here, where the script cannot
 * change it; what was checked is what is opened. Questions come from a process that is not trusted: they are answered in
 * order, one at a time and so many a second, and anything that is no question ends the conversation.
 */

import { lookup } from "node:dns/promises";
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readlinkSync } from "node:fs";
import { createServer, isIP, Socket } from "node:net";
import os from "node:os";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { native } from "../segment/native.js";
import { type Address, type Ask, askSchema, type Reply } from "./asks.js";
import type { PermissionLog } from "./audit.js";
import { findProgram, hostOf, isDenied, isPermitted, netValue, type Permissions, realPathOf } from "./permissions.js";
import { flagFor, type Permission } from "./wish.js";

/** Longer than any question can be, in bytes. */
const LONGEST_LINE = 16_384;
/** A flood of questions is slowed down to so many per window. */
const ASKS_PER_WINDOW = 100;
const WINDOW_MS = 100;
/** A peer that does not answer, and a name that nobody resolves, are given up after this. */
const NETWORK_PATIENCE_MS = 10_000;
/** Where mishap's own segments and the handles of processes are: never handed out, whatever is granted. */
const NEVER = [/^\/dev\/shm\/mishap-/, /^\/proc(\/|$)/, /^\/sys(\/|$)/];

/** What a broker serves. */
export interface BrokerOptions {
  readonly permissions: Permissions;
  /** Whose questions these are, as the log names it. */
  readonly script: string;
  readonly log: PermissionLog;
  /** The variables that `env` is answered from; this process's own by default. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

/** A broker at work. */
export interface Broker {
  /** Resolves when nobody asks any more: with a reason where the other end said what it may not. */
  readonly ended: Promise<string | undefined>;
  /** Answers nothing any more. */
  close(): void;
}

/** A reply, and what goes in beside it. `release` closes this end's copy. */
interface Answer {
  readonly reply: Reply;
  readonly descriptor?: number;
  readonly release?: () => void;
}

/** Answers the questions that arrive at a stream socket's end, which is the broker's from now on. */
export function serveBroker(fd: number, options: BrokerOptions): Broker {
  const socket = new Socket({ fd });
  let end: (reason?: string) => void = () => {};
  const ended = new Promise<string | undefined>((resolve) => {
    end = resolve;
  });
  const close = (reason?: string): void => {
    socket.destroy();
    end(reason);
  };
  socket.on("error", () => close());
  socket.on("close", () => close());
  void serve(socket, fd, options).then(close, (error: unknown) =>
    close(socket.destroyed ? undefined : `the broker failed: ${error instanceof Error ? error.message : error}`),
  );
  return { ended, close: () => close() };
}

async function serve(socket: Socket, fd: number, options: BrokerOptions): Promise<string | undefined> {
  let rest = Buffer.alloc(0);
  let asked = 0;
  let windowEnd = performance.now() + WINDOW_MS;
  // The socket is read no further while a question is answered: who asks faster waits.
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    rest = Buffer.concat([rest, chunk]);
    for (let at = rest.indexOf("\n"); at >= 0; at = rest.indexOf("\n")) {
      const ask = parseAsk(rest.subarray(0, at));
      rest = rest.subarray(at + 1);
      if (ask === undefined) return "the script's host asked for what is no question";
      const answer = await answerTo(ask, options);
      try {
        if (socket.destroyed) return undefined;
        native.reply(fd, JSON.stringify(answer.reply), answer.descriptor);
      } finally {
        answer.release?.();
      }
      if (++asked >= ASKS_PER_WINDOW) {
        const left = windowEnd - performance.now();
        if (left > 0) await delay(left);
        [asked, windowEnd] = [0, performance.now() + WINDOW_MS];
      }
    }
    if (rest.length > LONGEST_LINE) return "the script's host asked for more than a question can be";
  }
  return undefined;
}

function parseAsk(line: Buffer): Ask | undefined {
  try {
    const parsed = askSchema.safeParse(JSON.parse(line.toString("utf8")));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

async function answerTo(ask: Ask, options: BrokerOptions): Promise<Answer> {
  try {
    switch (ask.ask) {
      case "connect":
        return await connect(ask, options);
      case "listen":
        return await listen(ask, options);
      case "resolve":
        return await resolveName(ask, options);
      case "open":
        return open(ask, options);
      case "env":
        return readVariable(ask, options);
      case "sys":
        return systemFact(ask, options);
      case "refused":
        return refused(ask, options);
    }
  } catch (error) {
    return failed(error);
  }
}

async function connect(ask: Extract<Ask, { ask: "connect" }>, options: BrokerOptions): Promise<Answer> {
  const host = reachedAs(ask.host);
  if (!decide(options, "net", host === undefined ? undefined : netValue(host, ask.port), "connect")) {
    return denied("net", `${ask.host}:${ask.port}`);
  }
  let failure: unknown;
  for (const { address } of await addressesOf(host ?? ask.host)) {
    // A name that is granted must not lead to an address that is denied.
    const value = netValue(reachedAs(address) ?? address, ask.port);
    if (value === undefined || isDenied(options.permissions, "net", value)) {
      decide(options, "net", value, `connect to ${ask.host}, which is this address,`);
      return denied("net", value ?? address);
    }
    try {
      const socket = await connected(address, ask.port);
      return { reply: { ok: {} }, descriptor: descriptorOf(socket), release: () => socket.destroy() };
    } catch (error) {
      failure = error;
    }
  }
  return failed(failure);
}

/** The host that a connection is really made to: the unspecified address means this machine. */
function reachedAs(host: string): string | undefined {
  const known = hostOf(host);
  if (known === "0.0.0.0") return "127.0.0.1";
  return known === "[::]" ? "[::1]" : known;
}

/** A connection of which not a byte is read here. */
function connected(address: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = new Socket().unref(); // nobody waits for it once the script is gone
    socket.pause();
    const patience = setTimeout(() => {
      socket.destroy(Object.assign(new Error(`connect ETIMEDOUT ${address}:${port}`), { code: "ETIMEDOUT" }));
    }, NETWORK_PATIENCE_MS).unref();
    socket.once("close", () => clearTimeout(patience));
    socket.once("error", reject);
    socket.connect({ host: address, port }, () => {
      clearTimeout(patience);
      resolve(socket);
    });
  });
}

async function listen(ask: Extract<Ask, { ask: "listen" }>, options: BrokerOptions): Promise<Answer> {
  if (!decide(options, "net", netValue(ask.host, ask.port), "listen")) return denied("net", `${ask.host}:${ask.port}`);
  const [first] = await addressesOf(hostOf(ask.host) ?? ask.host);
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    // Nobody is accepted here: this is called before the loop looks at the new socket.
    server.listen({ host: first?.address, port: ask.port, exclusive: true }, () => {
      resolve({ reply: { ok: {} }, descriptor: descriptorOf(server), release: () => server.close() });
    });
  });
}

async function resolveName(ask: Extract<Ask, { ask: "resolve" }>, options: BrokerOptions): Promise<Answer> {
  const host = hostOf(ask.host);
  // Who may reach any port of a host may know where it is.
  const { allow, deny } = options.permissions.net;
  const named = allow.only.find((value) => value === host || value.replace(/:\d+$/, "") === host);
  const value = named !== undefined && !deny.only.includes(named) ? named : host;
  if (!decide(options, "net", value, "look it up")) return denied("net", ask.host);
  return { reply: { ok: { addresses: await addressesOf(host ?? ask.host) } } };
}

async function addressesOf(host: string): Promise<Address[]> {
  const bare = host.replace(/^\[|\]$/g, "");
  if (isIP(bare) !== 0) return [{ address: bare, family: isIP(bare) }];
  const patience = new AbortController();
  try {
    return await Promise.race([
      lookup(bare, { all: true }),
      delay(NETWORK_PATIENCE_MS, undefined, { signal: patience.signal, ref: false }).then(() => {
        throw Object.assign(new Error(`getaddrinfo EAI_AGAIN ${bare}`), { code: "EAI_AGAIN" });
      }),
    ]);
  } finally {
    patience.abort();
  }
}

/** Opens a file for what was granted by name. No link on the way is followed that was not there when it was checked. */
function open(ask: Extract<Ask, { ask: "open" }>, options: BrokerOptions): Answer {
  const permission = ask.flags === "r" ? "read" : "write";
  const path = realPathOf(ask.path);
  const isKept = NEVER.some((pattern) => pattern.test(path));
  if (isKept || !decide(options, permission, path, "open")) {
    if (isKept) note(options, "deny", permission, path, "it is mishap's or the kernel's own and never handed out");
    return denied(permission, path);
  }
  const folder = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    if (readlinkSync(`/proc/self/fd/${folder}`) !== dirname(path)) return moved(options, permission, path);
    // Beneath the folder that was opened, wherever that path leads by now.
    const fd = openSync(join(`/proc/self/fd/${folder}`, basename(path)), openFlags(ask.flags), 0o666);
    const release = () => closeSync(fd);
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`) !== path || !fstatSync(fd).isFile()) {
        release();
        return moved(options, permission, path);
      }
      if (ask.flags === "w") ftruncateSync(fd);
      return { reply: { ok: {} }, descriptor: fd, release };
    } catch (error) {
      release();
      throw error;
    }
  } finally {
    closeSync(folder);
  }
}

/** O_NONBLOCK: a pipe that stands in a file's place must not hold the broker up. Truncated only once it is known. */
function openFlags(flags: "r" | "w" | "a"): number {
  const always = constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY;
  if (flags === "r") return always | constants.O_RDONLY;
  return always | constants.O_WRONLY | constants.O_CREAT | (flags === "a" ? constants.O_APPEND : 0);
}

function moved(options: BrokerOptions, permission: Permission, path: string): Answer {
  note(options, "deny", permission, path, "it was no regular file at this path any more when it was opened");
  return denied(permission, path);
}

function readVariable({ name }: Extract<Ask, { ask: "env" }>, options: BrokerOptions): Answer {
  if (!decide(options, "env", name, "read")) return denied("env", name);
  const value = (options.environment ?? process.env)[name];
  return { reply: { ok: value === undefined ? {} : { value } } };
}

function systemFact({ fact }: Extract<Ask, { ask: "sys" }>, options: BrokerOptions): Answer {
  if (!decide(options, "sys", fact, "know it")) return denied("sys", fact);
  return { reply: { ok: { value: JSON.stringify(os[fact]()) } } };
}

/** The kernel refused something inside. Where it was granted, the reason is another one, and not ours to explain. */
function refused({ permission, value }: Extract<Ask, { ask: "refused" }>, options: BrokerOptions): Answer {
  const where = { cwd: process.cwd(), searchPath: process.env.PATH ?? "" };
  const path = permission === "run" ? (findProgram(value, where) ?? value) : realPathOf(value);
  if (isPermitted(options.permissions, permission, path)) return { reply: { ok: {} } };
  options.log.write({
    source: "script",
    action: "deny",
    permission,
    value: path,
    script: options.script,
    why: "the kernel refused it to the script",
  });
  return denied(permission, path);
}

/** Whether something is permitted, which the log says too. A value that is none is not. */
function decide(options: BrokerOptions, permission: Permission, value: string | undefined, doing: string): boolean {
  const isGranted = value !== undefined && isPermitted(options.permissions, permission, value);
  const flag = flagFor({ permission, value: value ?? "" });
  const why = isGranted ? `it asked to ${doing}, as granted` : `it asked to ${doing} without ${flag}`;
  note(options, isGranted ? "grant" : "deny", permission, value ?? "", why);
  return isGranted;
}

function note(
  { log, script }: BrokerOptions,
  action: "grant" | "deny",
  permission: Permission,
  value: string,
  why: string,
) {
  log.write({ source: "broker", action, permission, value, script, why });
}

function denied(permission: Permission, value: string): Answer {
  return { reply: { denied: { permission, value } } };
}

function failed(error: unknown): Answer {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && "code" in error ? String(error.code) : "EIO";
  return { reply: { failed: { code, message: message.replace(/\/proc\/self\/fd\/\d+\//g, "") } } };
}

/** The descriptor beneath a socket or server; Node has no public name for it. */
function descriptorOf(holder: object): number {
  const { _handle } = holder as { _handle?: { fd?: number } };
  const fd = _handle?.fd;
  if (fd === undefined || fd < 0) throw new Error("this version of Node hides the descriptors of its sockets");
  return fd;
}
