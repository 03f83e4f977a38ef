// Connects that a policy would end if they took too long, and that do not: the kernel's timer for their SYNs rings again and again
// while they are under way, and once in some two thousand just as one is completed.
import { type AddressInfo, createServer } from "node:net";
import { beforeEach, expect, it } from "vitest";
import { evidenceOf, scratchFolder } from "./cli-harness.js";
import { needsKernel } from "./support/kernel.js";

const folder = scratchFolder();
beforeEach(needsKernel);

const PROGRAM = `
import socket, sys
failed = 0
for i in range(int(sys.argv[2])):
    s = socket.socket(); s.setsockopt(6, socket.TCP_SYNCNT, 3)
    failed += s.connect_ex(("127.0.0.1", int(sys.argv[1]))) != 0
    s.close()
print(failed)
`;

it("12,000 connects are made, all of them", { timeout: 900_000 }, async () => {
  const server = createServer((socket) => socket.on("error", () => {}).resume());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const flags = ["--kernel", "--executor", "relay", "--timeout.connect", "900ms", "--latency", "50ms"];
  const command = ["python3", "-c", PROGRAM, String(port), "1500"];
  const ends = await Promise.all(Array.from({ length: 8 }, () => evidenceOf(folder, flags, command)));
  server.close();
  expect(ends.map(({ stdout }) => stdout.trim())).toEqual(Array.from({ length: 8 }, () => "0"));
});
