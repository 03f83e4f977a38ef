/**
 * How evidence writes numbers for people: durations in the unit that keeps them short, counts with thousands
 * separators, probabilities in percent, columns that line up. Nothing here knows what the numbers mean.
 */

/** `100.6ms`, `1.20s`, `85µs`: three or four significant digits in the unit that fits. */
export function formatDurationNs(durationNs: number): string {
  if (durationNs < 0) return `-${formatDurationNs(-durationNs)}`;
  if (durationNs >= 1e9) return `${(durationNs / 1e9).toFixed(2)}s`;
  if (durationNs >= 1e6) return `${(durationNs / 1e6).toFixed(1)}ms`;
  if (durationNs >= 1e3) return `${(durationNs / 1e3).toFixed(0)}µs`;
  return `${durationNs.toFixed(0)}ns`;
}

/** `1,204`. */
export function formatCount(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** `812 B`, `1.2 kB`, `40 MB`: in thousands, two digits below ten. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [value, unit] = [bytes, 0];
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${unit > 0 && value < 9.95 ? trimZeros(value.toFixed(1)) : value.toFixed(0)} ${units[unit]}`;
}

/** `12 flows`, `1 flow`. */
export function formatPlural(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** Parts per million as a percentage with as many digits as say something: `0.98%`, `10.3%`, `0.0025%`. */
export function formatPpm(ppm: number): string {
  const percent = ppm / 10_000;
  if (percent === 0 || percent >= 10) return `${trimZeros(percent.toFixed(1))}%`;
  return `${trimZeros(percent.toFixed(percent >= 0.1 ? 2 : 4))}%`;
}

function trimZeros(digits: string): string {
  return digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
}

/** Pads every column but the last to its widest cell. */
export function alignColumns(rows: readonly (readonly string[])[], gap = 2): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  return rows.map((row) =>
    row
      .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd((widths[column] ?? 0) + gap)))
      .join("")
      .trimEnd(),
  );
}
