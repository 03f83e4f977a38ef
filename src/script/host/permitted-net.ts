/**
 * The network, as a script's permissions have it. The jail opens no sockets at all: a connection that is made here is the
 * broker's, which comes in as a descriptor. Everything of Node that speaks TCP goes through two methods of node:net.
 */

import dns from "node:dns";
import net from "node:net";
import { PermissionDenied } from "../denied.js";
import type { Questions } from "./questions.js";

/** Node listens everywhere where no host is given. */
const EVERYWHERE = "0.0.0.0";
const THIS_MACHINE = "localhost";

interface Target {
  readonly host: string;
  readonly port: number;
  readonly options: object;
  readonly callback: (() => void) | undefined;
}

/** What is beneath a socket, as node:net uses it. */
interface Handle {
  open(fd: number): number;
  connect(request: ConnectRequest): number;
}
interface ConnectRequest {
  oncomplete(status: number, handle: Handle, request: ConnectRequest, readable: boolean, writable: boolean): void;
}

/** Changes node:net, node:dns and fetch in this thread. Their ESM names follow when they are synchronised. */
export function permitNetwork(questions: Questions): void {
  permitConnecting(questions);
  permitListening(questions);
  permitLookups(questions);
  const original = globalThis.fetch;
  globalThis.fetch = async (...args) => {
    try {
      return await original(...args);
    } catch (error) {
      throw error instanceof Error && error.cause instanceof PermissionDenied ? error.cause : error;
    }
  };
}

function permitConnecting(questions: Questions): void {
  const original = net.Socket.prototype.connect as (this: net.Socket, ...args: unknown[]) => net.Socket;
  function connect(this: net.Socket, ...args: unknown[]): net.Socket {
    const target = targetOf(args, THIS_MACHINE);
    if (target === undefined) return original.apply(this, args); // a path, which the kernel refuses
    const { host, port, options, callback } = target;
    let fd: number | undefined;
    try {
      fd = questions.askForDescriptor({ ask: "connect", host, port });
    } catch (error) {
      if (callback !== undefined) this.once("connect", callback);
      (this as { connecting: boolean }).connecting = true;
      process.nextTick(() => this.destroy(error instanceof Error ? error : new Error(String(error))));
      return this;
    }
    this.once("close", () => {
      if (fd !== undefined) new net.Socket({ fd }).destroy(); // it ended before it was connected
    });
    // An address, so that nothing is looked up; which one does not matter, since the connection is there already.
    const plain = { ...options, host: "127.0.0.1", port, family: 4, lookup: undefined, localAddress: undefined };
    original.call(this, { ...plain, localPort: undefined, path: undefined }, callback);
    const { _handle: handle } = this as unknown as { _handle: Handle };
    handle.connect = (request) => {
      const status = handle.open(fd ?? -1);
      if (status !== 0) return status;
      fd = undefined;
      setImmediate(() => request.oncomplete(0, handle, request, true, true));
      return 0;
    };
    return this;
  }
  net.Socket.prototype.connect = connect;
}

function permitListening(questions: Questions): void {
  const original = net.Server.prototype.listen as (this: net.Server, ...args: unknown[]) => net.Server;
  function listen(this: net.Server, ...args: unknown[]): net.Server {
    const target = targetOf(args.length === 0 || typeof args[0] === "function" ? [0, ...args] : args, EVERYWHERE);
    if (target === undefined) return original.apply(this, args);
    try {
      const fd = questions.askForDescriptor({ ask: "listen", host: target.host, port: target.port });
      return original.call(this, { fd }, target.callback);
    } catch (error) {
      process.nextTick(() => this.emit("error", error));
      return this;
    }
  }
  net.Server.prototype.listen = listen;
}

/** What connect() and listen() are called with; nothing where that is no host and port. */
function targetOf(given: readonly unknown[], otherwise: string): Target | undefined {
  // node:net hands on arguments that it has put in order already, as a list.
  const args: readonly unknown[] = Array.isArray(given[0]) ? given[0] : given;
  const [first, second] = args;
  const options: { port?: unknown; host?: unknown } =
    typeof first === "object" && first !== null ? first : { port: first, host: second };
  const port = typeof options.port === "string" && options.port !== "" ? Number(options.port) : options.port;
  if (typeof port !== "number" || !Number.isInteger(port) || port < 0 || port > 65535) return undefined;
  const host = typeof options.host === "string" && options.host !== "" ? options.host : otherwise;
  const callback = args.find((each): each is () => void => typeof each === "function");
  return { host, port, options, callback };
}

interface LookupOptions {
  readonly all: boolean;
  readonly family: number;
}

function permitLookups(questions: Questions): void {
  const lookup = (host: string, { all, family }: LookupOptions) => {
    const addresses = (questions.ask({ ask: "resolve", host }).addresses ?? []).filter(
      (each) => family === 0 || each.family === family,
    );
    const [first] = addresses;
    if (first === undefined) {
      throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${host}`), { code: "ENOTFOUND", hostname: host });
    }
    return all ? addresses : first;
  };
  const waiting = dns.lookup;
  const patched = Object.assign((host: string, ...rest: unknown[]): void => {
    const callback = rest.at(-1);
    if (typeof callback !== "function" || typeof host !== "string" || host === "" || net.isIP(host) !== 0) {
      Reflect.apply(waiting, dns, [host, ...rest]);
      return;
    }
    let outcome: unknown[];
    try {
      const found = lookup(host, lookupOptions(rest[0]));
      outcome = Array.isArray(found) ? [null, found] : [null, found.address, found.family];
    } catch (error) {
      outcome = [error];
    }
    process.nextTick(() => callback(...outcome));
  }, waiting);
  const promising = dns.promises.lookup;
  const owner = dns as { lookup: unknown };
  owner.lookup = patched;
  const promises = dns.promises as { lookup: unknown };
  promises.lookup = async (host: string, options?: unknown) => {
    if (typeof host !== "string" || host === "" || net.isIP(host) !== 0) {
      return Reflect.apply(promising, dns.promises, [host, options]);
    }
    return lookup(host, lookupOptions(options));
  };
}

function lookupOptions(options: unknown): LookupOptions {
  if (typeof options === "number") return { all: false, family: options };
  const { all, family }: { all?: unknown; family?: unknown } =
    typeof options === "object" && options !== null ? options : {};
  return {
    all: all === true,
    family: family === 4 || family === "IPv4" ? 4 : family === 6 || family === "IPv6" ? 6 : 0,
  };
}
