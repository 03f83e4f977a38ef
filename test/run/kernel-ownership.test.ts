// Whose a socket is comes from the kernel, before the socket's first byte: test/programs/kernel/owners.cpp looks up
// every socket that it makes in the rows that the interceptor in its process maps.
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { mishap, scratchFolder } from "./cli-harness.js";
import { build, kernelWorks, needsKernel } from "./support/kernel.js";

const folder = scratchFolder();
let owners = "";

const answer = z.strictObject({
  rows: z.string(),
  open: z.int(),
  sockets: z.int(),
  known: z.int(),
  right: z.int(),
});

beforeAll(async () => {
  if (kernelWorks) owners = await build(folder, "owners");
});
beforeEach(needsKernel);

async function lookedUp(...command: string[]): Promise<z.infer<typeof answer>> {
  const { code, stdout, stderr } = await mishap("run", "--kernel", "--quiet", "--latency", "1ms", "--", ...command);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return answer.parse(JSON.parse(stdout));
}

/** Every one known and right, in the interceptor's own mapping, of which no descriptor is left open. */
const allRight = (sockets: number) => ({ rows: "interceptor", open: 0, sockets, known: sockets, right: sockets });

it("is known of each of 100,000 sockets that 16 threads make, process and thread", async () => {
  expect(await lookedUp(owners, "made", "16", "6250")).toEqual(allRight(100_000));
}, 180_000);

describe("sockets that were not made where they are used", () => {
  it("accepted ones are those of the thread that accepted, whether it asked for the peer's name or not", async () => {
    expect(await lookedUp(owners, "accepted", "4", "50")).toEqual(allRight(200));
  });

  it("inherited ones stay those of the thread that made them", async () => {
    expect(await lookedUp(owners, "inherited", "1", "50")).toEqual(allRight(50));
  });
});

describe("a grandchild by Python's subprocess, which closes descriptors", () => {
  it.each([
    ["with vfork", ""],
    ["with fork", "subprocess._USE_VFORK = False"],
  ])("reads the same, %s", async (_, how) => {
    const script = `import subprocess, sys\n${how}\nsys.exit(subprocess.run(sys.argv[1:], close_fds=True).returncode)`;
    expect(await lookedUp("python3", "-c", script, owners, "made", "4", "50")).toEqual(allRight(200));
  });
});
