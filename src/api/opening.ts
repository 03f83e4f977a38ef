/**
 * The few places in which Node itself opens sockets and looks up names, wrapped once a thread: the methods of its own
 * handle classes, on which `net`, `tls`, `http`, `dgram` and every client above them stand. Sockets opened inside a
 * context are bound to its policy natively, because the thread that opens them is the one that runs the flow. Lookups
 * run on other threads, so their policy travels in their flags.
 */

import dns from "node:dns";
import { syncBuiltinESMExports } from "node:module";
import { native } from "../segment/index.js";

/** Which policy, by index, holds for what the current flow does now; undefined: none of this API's. */
export interface CurrentPolicy {
  sockets(): number | undefined;
  lookups(): number | undefined;
}

/** Any function of Node's. */
export type Method = (this: unknown, ...args: unknown[]) => unknown;

/** What opens sockets, by Node's internal binding and its class. */
const OPENINGS: readonly (readonly [binding: string, owner: string, methods: RegExp])[] = [
  ["tcp_wrap", "TCP", /^(connect|connect6|bind|bind6|listen)$/],
  ["pipe_wrap", "Pipe", /^(connect|bind|listen)$/],
  ["udp_wrap", "UDP", /^(bind|bind6|connect|connect6|send|send6)$/],
  ["cares_wrap", "ChannelWrap", /^(query[A-Z].*|getHostByAddr)$/],
];

/** The interceptor finds policy + 1 above this bit of getaddrinfo's `ai_flags`; libc's own flags are all below. */
const FLAGS_MARK_SHIFT = 16;
const FLAGS_ARGUMENT = 3;

/** Wraps Node's openings and lookups in this thread. */
export function watchOpenings(current: CurrentPolicy): void {
  for (const [bindingName, owner, methods] of OPENINGS) {
    const prototype = property(property(internalBinding(bindingName), owner), "prototype");
    for (const name of Object.getOwnPropertyNames(prototype ?? {})) {
      if (methods.test(name)) wrap(prototype, name, (open) => opening(open, current));
    }
  }
  wrap(internalBinding("cares_wrap"), "getaddrinfo", (lookUp) => lookup(lookUp, current));
  wrapPromisedLookup(current);
}

function opening(open: Method, current: CurrentPolicy): Method {
  return function (...args) {
    const policy = current.sockets();
    if (policy === undefined) return Reflect.apply(open, this, args);
    native.enterPolicy(policy);
    try {
      return Reflect.apply(open, this, args);
    } finally {
      native.enterPolicy(-1);
    }
  };
}

function lookup(lookUp: Method, current: CurrentPolicy): Method {
  return function (...args) {
    const policy = current.lookups();
    const flags = args[FLAGS_ARGUMENT];
    if (policy !== undefined && policy >= 0 && typeof flags === "number") {
      args[FLAGS_ARGUMENT] = flags | ((policy + 1) << FLAGS_MARK_SHIFT);
    }
    return Reflect.apply(lookUp, this, args);
  };
}

/** `dns.promises` may have taken its `getaddrinfo` before it was wrapped; `dns.lookup` asks for it at each call. */
function wrapPromisedLookup(current: CurrentPolicy): void {
  wrap(
    dns.promises,
    "lookup",
    (original) =>
      function (this: unknown, ...args) {
        if (current.lookups() === undefined) return Reflect.apply(original, this, args);
        const [hostname, given] = args;
        const options = typeof given === "object" && given !== null ? given : { family: given ?? 0 };
        let settle: (error: unknown, address: unknown, family: unknown) => void = () => {};
        const answer = new Promise((resolve, reject) => {
          settle = (error, address, family) => {
            if (error) reject(error);
            else resolve(Array.isArray(address) ? address : { address, family });
          };
        });
        // Outside the promise, because arguments that are wrong are thrown at once.
        Reflect.apply(dns.lookup, dns, [hostname, options, settle]);
        return answer;
      },
  );
  syncBuiltinESMExports();
}

/** Puts another function in a method's place; nothing where there is no such method. */
export function wrap(owner: unknown, name: string, around: (original: Method) => Method): void {
  if (typeof owner !== "object" || owner === null) return;
  const original: unknown = Reflect.get(owner, name);
  if (!isMethod(original)) return;
  const wrapped = around(original);
  Object.defineProperty(wrapped, "name", { value: name });
  Object.defineProperty(wrapped, "length", { value: original.length });
  Reflect.set(owner, name, wrapped);
}

/** Node's classes are reached through `process.binding`, which only tells people of its deprecation when asked to. */
function internalBinding(name: string): unknown {
  const binding: unknown = Reflect.get(process, "binding");
  if (!isMethod(binding)) return undefined;
  const before: unknown = Reflect.get(process, "noDeprecation");
  Reflect.set(process, "noDeprecation", true);
  try {
    return Reflect.apply(binding, process, [name]);
  } finally {
    Reflect.set(process, "noDeprecation", before);
  }
}

function property(of: unknown, name: string): unknown {
  return (typeof of === "object" && of !== null) || typeof of === "function" ? Reflect.get(of, name) : undefined;
}

function isMethod(value: unknown): value is Method {
  return typeof value === "function";
}
