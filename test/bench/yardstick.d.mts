/** Types of yardstick.mjs, for the tests. */
export function build(): void;
export function under(...flags: string[]): string[];
export function instructionsAdded(prefix: readonly string[], sock: string): Map<string, number>;
