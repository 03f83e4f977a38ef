/**
 * Who called sudo, and becoming that user again: what needed root is done by then, and the program belongs to the user,
 * with the user's own environment.
 */

import { readFileSync } from "node:fs";
import { userInfo } from "node:os";

/** The user behind sudo. */
export interface Invoker {
  readonly uid: number;
  readonly gid: number;
  readonly user: string;
}

/** Whether this process was started through sudo, whoever called it. */
export function throughSudo(): boolean {
  return process.getuid?.() === 0 && process.env.SUDO_UID !== undefined;
}

/** Who called sudo; undefined where nobody did, or root itself. */
export function findInvoker(environment: NodeJS.ProcessEnv = process.env): Invoker | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const [uid, gid] = [environment.SUDO_UID, environment.SUDO_GID].map(Number);
  if (uid === undefined || gid === undefined || !Number.isInteger(uid) || !Number.isInteger(gid)) return undefined;
  return uid > 0 && gid >= 0 ? { uid, gid, user: environment.SUDO_USER ?? "" } : undefined;
}

/**
 * From here on this process is the invoking user's, for good: groups, all three ids of each kind, and environment. The
 * working directory stays.
 */
export function becomeInvoker({ uid, gid, user }: Invoker): void {
  const environment = sudoEnvironment();
  joinGroups(user, gid);
  process.setgid?.(gid);
  process.setuid?.(uid);
  const theirs = withoutSudo(environment ?? { ...process.env, ...accountVariables() });
  for (const name of Object.keys(process.env)) if (!(name in theirs)) delete process.env[name];
  Object.assign(process.env, theirs);
}

/** Does something with that user's rights to files, and is root again. */
export async function actAs<Result>({ uid, gid }: Invoker, what: () => Promise<Result>): Promise<Result> {
  process.setegid?.(gid);
  process.seteuid?.(uid);
  try {
    return await what();
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
  }
}

/** All groups of a user; of one without a name, that one alone. */
function joinGroups(user: string, gid: number): void {
  try {
    if (!("initgroups" in process) || typeof process.initgroups !== "function") throw new Error("not here");
    process.initgroups(user, gid);
  } catch {
    process.setgroups?.([gid]);
  }
}

/** What sudo itself was started with (proc(5), environ); only root may read it. */
function sudoEnvironment(): Record<string, string> | undefined {
  try {
    for (let pid = process.ppid; pid > 1; ) {
      const { name, parent } = readStatus(pid);
      if (name === "sudo") return parseEnvironment(readFileSync(`/proc/${pid}/environ`, "utf8"));
      pid = parent;
    }
  } catch {
    // It is gone, or this is not the namespace it lives in.
  }
  return undefined;
}

function readStatus(pid: number): { name: string; parent: number } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return { name: /^Name:\t(.*)$/m.exec(status)?.[1] ?? "", parent: Number(/^PPid:\t(\d+)$/m.exec(status)?.[1] ?? 0) };
}

/** `NAME=value`, each ended by a zero byte. */
export function parseEnvironment(text: string): Record<string, string> {
  const entries = text.split("\0").flatMap((entry) => {
    const at = entry.indexOf("=");
    return at > 0 ? [[entry.slice(0, at), entry.slice(at + 1)] as const] : [];
  });
  return Object.fromEntries(entries);
}

function accountVariables(): Record<string, string> {
  const { username, homedir, shell } = userInfo();
  return { USER: username, LOGNAME: username, HOME: homedir, ...(shell === null ? {} : { SHELL: shell }) };
}

function withoutSudo(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith("SUDO_")));
}
