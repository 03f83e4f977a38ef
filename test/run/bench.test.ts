// The figures that are exact: instructions a call takes more than bare, counted by callgrind. The others are timings, and
// `npm run bench` measures them.
import { beforeAll, expect, it } from "vitest";
import { build, instructionsAdded, under } from "../bench/yardstick.mjs";

beforeAll(build);

it("reading and writing a file takes at most 8 instructions more a call, whatever is asked for", () => {
  const added = instructionsAdded(under("--latency", "50ms"), "file");
  expect([...added.keys()].sort()).toEqual(["read", "readv", "write", "writev"]);
  for (const [call, instructions] of added) expect(instructions, call).toBeLessThanOrEqual(8);
});

it.each(["unix", "tcp", "udp"])(
  "a call on a %s socket that nothing is asked for takes at most 40 instructions more",
  (sock) => {
    const added = instructionsAdded(under(), sock);
    expect(added.size).toBe(12);
    for (const [call, instructions] of added) expect(instructions, call).toBeLessThanOrEqual(40);
  },
);
