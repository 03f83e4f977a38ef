/** Segments as files: their names, finding them, and removing those that nobody needs any more. */

import { randomBytes } from "node:crypto";
import { lstatSync, readdirSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { native } from "./native.js";

/** Where segments live. */
export const SEGMENT_DIRECTORY = "/dev/shm";

const LONGEST_PROJECT_ID = 40;

/** A project's name as segment files carry it: letters, digits, `.` and `_`, at most 40. */
export function projectId(name: string): string {
  return name.replace(/[^A-Za-z0-9._]/g, "_").slice(0, LONGEST_PROJECT_ID) || "_";
}

function userId(): number {
  return process.geteuid?.() ?? 0;
}

/** A path that no other segment has: `mishap-<uid>-<project id>-<8 hex digits>`. */
export function newSegmentPath(project: string, directory = SEGMENT_DIRECTORY, uid = userId()): string {
  return join(directory, `mishap-${uid}-${projectId(project)}-${randomBytes(4).toString("hex")}`);
}

/** This user's segment files, valid or not, with the project each belongs to. */
export function findSegmentFiles(directory: string): { path: string; project: string }[] {
  const pattern = new RegExp(`^mishap-${userId()}-([A-Za-z0-9._]+)-[0-9a-f]{8}$`);
  return namesIn(directory).flatMap((name) => {
    const project = pattern.exec(name)?.[1];
    return project === undefined ? [] : [{ path: join(directory, name), project }];
  });
}

/**
 * Removes what runs left behind that were killed together with their janitor: segments whose owner and programs are
 * all gone, and what lay beside segments that are gone: links to the interceptor (`SEGMENT.so`), sockets of couriers
 * (`SEGMENT.courier`) and of the kernel's side (`SEGMENT.kernel`), and mailboxes of scripts (`SEGMENT.mailbox`).
 *
 * @returns the paths removed
 */
export function sweep(directory: string): string[] {
  const removed = findSegmentFiles(directory)
    .map(({ path }) => path)
    .filter((path) => native.isAbandoned(path) && remove(path));
  const beside = new RegExp(`^(mishap-${userId()}-[A-Za-z0-9._]+-[0-9a-f]{8})\\.(so|courier|kernel|mailbox)$`);
  const names = namesIn(directory);
  for (const name of names) {
    const [, segment, kind] = beside.exec(name) ?? [];
    if (segment === undefined || names.includes(segment)) continue;
    const path = join(directory, name);
    if (isOurs(path, kind) && remove(path)) removed.push(path);
  }
  return removed;
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return []; // no such folder: no segments
  }
}

/** The kernel's side, and a script's, are there before their segment is, by less than this. */
const EARLY_MS = 60_000;

function isOurs(path: string, kind = ""): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  const early = kind === "kernel" || kind === "mailbox";
  if (found === undefined || found.uid !== userId() || Date.now() - found.ctimeMs < (early ? EARLY_MS : 0))
    return false;
  return kind === "mailbox" ? found.isFile() : found.isSymbolicLink() || found.isSocket();
}

/** False when somebody else was faster. */
function remove(path: string): boolean {
  try {
    unlinkSync(path);
    return true;
  } catch {
    return false;
  }
}
