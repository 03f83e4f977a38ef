/** The names of what can be permitted, and the flags that permit it. Loaded inside the jail too. */

/** What is granted value by value. */
export const KINDS = ["read", "write", "net", "env", "run"] as const;
export type Kind = (typeof KINDS)[number];
/** All that can be granted; `sys` has no values. */
export const PERMISSIONS = [...KINDS, "sys"] as const;
export type Permission = (typeof PERMISSIONS)[number];

/** The value that stands for all of a kind. */
export const EVERYTHING = "*";

/** One permission that is asked for; {@link EVERYTHING} is all of its kind. */
export interface Wish {
  readonly permission: Permission;
  readonly value: string;
}

/** The flag that grants one thing. */
export function flagFor({ permission, value }: Wish): string {
  return value === EVERYTHING || permission === "sys"
    ? `--allow-${permission}`
    : `--allow-${permission}=${escaped(value)}`;
}

/** A value as a list separated by commas holds it: a comma of its own is written twice. */
export function escaped(value: string): string {
  return value.replaceAll(",", ",,");
}
