/**
 * Permissions as people write them: flags of the command line, a script's header, a config file. Read here into one form,
 * which src/script/permissions.ts gives its meaning.
 */

import { readFileSync, statSync } from "node:fs";
import { z } from "zod";
import { nearest, quote } from "../policy/errors.js";
import { readSource } from "../policy/source.js";
import { EVERYTHING, type Kind, PERMISSIONS, type Permission } from "./wish.js";

type Values = Readonly<Partial<Record<Permission, readonly string[]>>>;

/** Permissions as somebody wrote them, not resolved yet. */
export interface WrittenPermissions {
  readonly allow: Values;
  readonly deny: Values;
}

/** Says in one sentence what is wrong with written permissions. */
export class PermissionsError extends Error {
  override readonly name = "PermissionsError";
}

const EXAMPLES: Readonly<Record<Kind, string>> = {
  read: "./traces",
  write: "./out",
  net: "api.local:443",
  env: "HOME",
  run: "git",
};
const MAX_CONFIG_BYTES = 100_000;
const HEADER_EXAMPLE = "// @permissions read=./traces net=api.local:443";

/**
 * Permissions from flags such as `--allow-read`, `--allow-net=api.local:443,[::1]`, `--deny-run=git` and `-A`. A comma
 * within a value is written twice.
 * @throws PermissionsError for any other flag and for an empty value.
 */
export function fromFlags(flags: readonly string[]): WrittenPermissions {
  return written(
    flags.flatMap((flag): Word[] => {
      if (flag === "-A" || flag === "--allow-all") return PERMISSIONS.map((each) => ["allow", each, [EVERYTHING]]);
      const [, sense, word] = /^--(allow|deny)-(.*)$/s.exec(flag) ?? [];
      if (word === undefined || (sense !== "allow" && sense !== "deny")) {
        throw new PermissionsError(`${quote(flag)}: is no permission; write such as --allow-read=./traces`);
      }
      return [parseWord(sense, word, flag)];
    }),
  );
}

/**
 * What a script declares in the comments before its first code, such as `// @permissions read=./traces net=api.local:443`:
 * the words of the flags without `--allow-`, with spaces between; `deny-…` gives something up.
 *
 * @param text - the script
 * @param file - what errors call it
 * @throws PermissionsError with the file and line.
 */
export function fromHeader(text: string, file: string): WrittenPermissions {
  const header = /^(?:\uFEFF)?(?:#![^\n]*\n)?(?:\s+|\/\/[^\n]*|\/\*[\s\S]*?\*\/)*/.exec(text)?.[0] ?? "";
  return written(
    header.split("\n").flatMap((line, at): Word[] => {
      const declared = /^\s*(?:\/\/|\/?\*+)\s*@permissions(?=\s|$)(.*?)(?:\*\/)?\s*$/.exec(line)?.[1];
      if (declared === undefined) return [];
      const place = `${file}:${at + 1}`;
      const words = declared.split(/\s+/).filter((word) => word !== "");
      if (words.length === 0) throw new PermissionsError(`${place}: declares nothing; write such as ${HEADER_EXAMPLE}`);
      return words.map((word) => {
        const [, deny, rest = ""] = /^(deny-)?(.*)$/s.exec(word) ?? [];
        return parseWord(deny === undefined ? "allow" : "deny", rest, `${place}: ${quote(word)}`);
      });
    }),
  );
}

const listed = z.union([z.literal(true), z.string(), z.array(z.string())]);
const side = z.strictObject({
  read: listed.optional(),
  write: listed.optional(),
  net: listed.optional(),
  env: listed.optional(),
  run: listed.optional(),
  sys: z.literal(true).optional(),
});
const configSchema = z.strictObject({ allow: side.optional(), deny: side.optional() });

/**
 * Permissions from a YAML file: `allow: { read: [./traces], sys: true }` and `deny: …`; `true` is all of a kind.
 * @throws PermissionsError with the file, line and column.
 */
export function fromConfigFile(file: string): WrittenPermissions {
  let text: string;
  try {
    if (statSync(file).size > MAX_CONFIG_BYTES) {
      throw new PermissionsError(`${file}: is too large; permissions have at most ${MAX_CONFIG_BYTES} bytes`);
    }
    text = readFileSync(file, "utf8");
  } catch (error) {
    if (error instanceof PermissionsError || !(error instanceof Error)) throw error;
    const reason = "code" in error ? String(error.code) : error.message;
    throw new PermissionsError(`${file}: cannot be read (${reason}); give a file that can`);
  }
  const read = readSource(text, "yaml");
  if ("problems" in read) {
    const [first] = read.problems;
    throw new PermissionsError(`${file}:${first?.place.line}:${first?.place.column}: ${first?.problem}`);
  }
  const parsed = configSchema.safeParse(read.ok.value);
  if (!parsed.success) {
    const path = parsed.error.issues[0]?.path ?? [];
    const { line, column } = read.ok.placeOf(path);
    const example = "allow: { read: [./traces], net: [api.local:443] }";
    throw new PermissionsError(`${file}:${line}:${column}: permissions are written such as ${example}, deny: alike`);
  }
  return written(
    (["allow", "deny"] as const).flatMap((sense) =>
      Object.entries(parsed.data[sense] ?? {}).map(([permission, values]): Word => {
        const list = values === true ? [EVERYTHING] : typeof values === "string" ? [values] : values;
        const known = PERMISSIONS.find((each) => each === permission) ?? "sys";
        const { line, column } = read.ok.placeOf([sense, permission]);
        return [sense, known, checkValues(known, list ?? [], `${file}:${line}:${column}: ${permission}`)];
      }),
    ),
  );
}

/** What a script gives up in its header: that holds without anybody's leave, what it asks for does not. */
export function onlyDenied({ deny }: WrittenPermissions): WrittenPermissions {
  return { allow: {}, deny };
}

type Word = readonly [sense: "allow" | "deny", permission: Permission, values: readonly string[]];

function written(words: readonly Word[]): WrittenPermissions {
  const sum: Record<"allow" | "deny", Partial<Record<Permission, string[]>>> = { allow: {}, deny: {} };
  for (const [sense, permission, values] of words) {
    sum[sense][permission] = [...(sum[sense][permission] ?? []), ...values];
  }
  return sum;
}

/** `read`, or `read=./a,./b`. */
function parseWord(sense: "allow" | "deny", word: string, shown: string): Word {
  const at = word.indexOf("=");
  const name = at < 0 ? word : word.slice(0, at);
  const permission = PERMISSIONS.find((each) => each === name);
  if (permission === undefined) {
    const close = nearest(name, PERMISSIONS);
    throw new PermissionsError(`${shown}: there is no permission ${quote(name)}; the nearest is ${close}`);
  }
  if (at < 0) return [sense, permission, [EVERYTHING]];
  // A comma that belongs to a value is written twice.
  const values = word
    .slice(at + 1)
    .replaceAll(",,", "\0")
    .split(",")
    .map((value) => value.replaceAll("\0", ","));
  return [sense, permission, checkValues(permission, values, shown)];
}

function checkValues(permission: Permission, values: readonly string[], shown: string): readonly string[] {
  if (permission === "sys") {
    if (values.some((value) => value !== EVERYTHING)) {
      throw new PermissionsError(`${shown}: sys has no values; write --allow-sys`);
    }
  } else if (values.length === 0 || values.some((value) => value === "" || value.includes("\0"))) {
    throw new PermissionsError(`${shown}: has an empty value; write such as ${permission}=${EXAMPLES[permission]}`);
  }
  return values;
}
