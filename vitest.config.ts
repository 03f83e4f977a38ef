// Two projects: unit tests share threads; native tests start programs under mishap and watch clocks, shared memory and
// processes, so each file has a process of its own and they run one after the other.
import { defineConfig } from "vitest/config";

/** How many times as long things may take, where the processor is emulated. */
const slow = Number(process.env.MISHAP_SLOW ?? 1);
const long = process.env.MISHAP_LONG === "1" ? [] : ["test/**/*.long.test.ts"];

export default defineConfig({
  test: {
    projects: [
      {
        extends: true,
        test: { name: "unit", include: ["test/unit/**/*.test.ts"], exclude: long, pool: "threads" },
      },
      {
        extends: true,
        test: {
          name: "native",
          include: ["test/**/*.test.ts"],
          exclude: ["test/unit/**", ...long],
          pool: "forks",
          fileParallelism: false,
          testTimeout: 60_000 * slow,
          hookTimeout: 60_000 * slow,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
