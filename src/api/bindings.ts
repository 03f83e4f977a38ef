/**
 * Bindings: policies attached to a thread, this process, the whole run, or one socket, until they are taken off. A
 * socket's own policy wins, then its thread's, its process's, the run's.
 */

import type { Socket as DatagramSocket } from "node:dgram";
import type { Server, Socket } from "node:net";
import { PolicyError } from "../policy/index.js";
import { native, type Segment } from "../segment/index.js";
import { followContexts } from "./context.js";
import { atThreadExit, requireSegment } from "./inside.js";
import { policyName, requirePolicy } from "./registry.js";

/** A socket by its descriptor or as Node has it, while it is open. */
export type SocketLike = number | Socket | Server | DatagramSocket;

/** In the segment: this process, not one of its threads. */
const WHOLE_PROCESS = 0;
const NO_POLICY = -1;

/** Whether this thread ever had a binding. */
let bound = false;

/**
 * Binds a policy to the calling thread (the main thread or one worker): to the sockets it opens and uses and the names
 * it looks up, outside contexts. `null` takes it off.
 *
 * @throws PolicyError for an unknown name, NotInterceptedError outside a run; as all of this page
 */
export function setThreadPolicy(name: string | null): void {
  const segment = requireSegment("setThreadPolicy");
  if (segment === undefined) return;
  followContexts(segment);
  const thread = native.threadId();
  bindThread(segment, thread, name, "setThreadPolicy");
  // The kernel may give the number of a thread that ended to another.
  if (!bound) atThreadExit(() => segment.unbindThread(thread));
  bound = true;
}

/** The name of what {@link setThreadPolicy} bound to the calling thread. */
export function getThreadPolicy(): string | undefined {
  const segment = requireSegment("getThreadPolicy");
  const policy = segment?.boundPolicy(native.threadId());
  return segment === undefined || policy === undefined || policy < 0 ? undefined : policyName(segment, policy);
}

/** Binds a policy to this process, for all its threads that have none. `null` takes it off. */
export function setProcessPolicy(name: string | null): void {
  const segment = requireSegment("setProcessPolicy");
  if (segment !== undefined) bindThread(segment, WHOLE_PROCESS, name, "setProcessPolicy");
}

/** Binds a policy to everything in the run that has no other, other processes included. `null`: to nothing. */
export function setProjectPolicy(name: string | null): void {
  const segment = requireSegment("setProjectPolicy");
  if (segment === undefined) return;
  segment.bindProject(name === null ? NO_POLICY : requirePolicy(segment, name, "setProjectPolicy"));
}

/** Binds a policy to one socket, whoever uses it; its duplicates, and what it accepts later, have it too. */
export function bindFd(socket: SocketLike, name: string): void {
  const segment = requireSegment("bindFd");
  if (segment === undefined) return;
  const policy = requirePolicy(segment, name, "bindFd");
  segment.bindSocket(descriptorOf(socket, "bindFd"), policy);
}

/** Takes a socket's own policy and owner off: it follows whichever thread uses it. */
export function clearFd(socket: SocketLike): void {
  const segment = requireSegment("clearFd");
  if (segment !== undefined) segment.clearSocket(descriptorOf(socket, "clearFd"));
}

function bindThread(segment: Segment, tid: number, name: string | null, what: string): void {
  if (name === null) segment.unbindThread(tid);
  else segment.bindThread(tid, requirePolicy(segment, name, what));
}

function descriptorOf(socket: SocketLike, what: string): number {
  const fd = typeof socket === "number" ? socket : fdOf(handleOf(socket));
  if (typeof fd === "number" && Number.isInteger(fd) && fd >= 0) return fd;
  throw new PolicyError(
    what,
    "needs an open socket or its descriptor; before `connect`, `listen` or `bind` it has none",
  );
}

/** Node's own handle of a socket. A datagram socket hides it in its state, and its `_handle` is deprecated. */
function handleOf(socket: object): unknown {
  const state = Object.getOwnPropertySymbols(socket).find(({ description }) => description === "state symbol");
  if (state === undefined) return Reflect.get(socket, "_handle");
  const value: unknown = Reflect.get(socket, state);
  return typeof value === "object" && value !== null ? Reflect.get(value, "handle") : undefined;
}

function fdOf(handle: unknown): unknown {
  return typeof handle === "object" && handle !== null ? Reflect.get(handle, "fd") : undefined;
}
