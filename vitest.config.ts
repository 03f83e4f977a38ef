// Two projects: unit tests share threads; native tests start programs under mishap and watch clocks, shared memory and
// processes, so each file has a process of its own and they run one after the other.
import { defineConfig } from "vitest/config";

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
          testTimeout: 60_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
