// Connects by the thousand, and what of them the relay still holds when they are over: descriptors, memory, rows.
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished } from "vitest";
import { evidenceOf, freshProject, start, until } from "../cli-harness.js";
import { processesNamed } from "./kernel.js";

const PROGRAM = fileURLToPath(new URL("../../programs/connects-many.py", import.meta.url));
/** Its listeners, what fills them, its timers, what the loader handed it, and the sockets that wait for datagrams' destinations. */
const MOST_DESCRIPTORS = 140;
const MOST_RSS_KB = 64_000;

const SILENT = `
import socket, sys
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(0)
full = [socket.socket() for _ in range(4)]
for each in full: each.setblocking(False); each.connect_ex(s.getsockname())
print(s.getsockname()[1], flush=True); sys.stdin.read()
`;

/** A port that answers no SYN: its queue is full. */
async function silentPort(): Promise<string> {
  const server = start("sh", ["-c", 'sleep 3600 | python3 -c "$0"', SILENT]);
  return new Promise((resolve) => server.child.stdout?.once("data", (data) => resolve(`${data}`.trim())));
}

async function echoPort(): Promise<string> {
  const server = createServer((socket) => {
    socket.on("error", () => {}).pipe(socket);
  });
  onTestFinished(() => {
    server.close();
  });
  await new Promise<void>((resolve) => server.listen({ port: 0, host: "127.0.0.1", backlog: 500 }, resolve));
  const address = server.address();
  return address === null || typeof address === "string" ? "" : String(address.port);
}

function relayOf(project: string): number {
  const relay = processesNamed("mishap-relay").find((pid) => {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(`-${project}-`);
  });
  if (relay === undefined) throw new Error("there is no relay");
  return relay;
}

/** Makes so many connects, and looks at the relay while the program still lives. */
export async function connectAndLook(folder: string, count: number): Promise<void> {
  const project = freshProject();
  const done = `${folder}/done-${project}`;
  const command = `python3 "$@" && touch ${done} && while [ -e ${done} ]; do sleep 0.05; done`;
  const ports = [await echoPort(), await silentPort()];
  const flags = ["--project", project, "--kernel", "--executor", "relay"];
  const words = ["sh", "-c", command, "sh", PROGRAM, ...ports, String(count)];
  let over = false;
  const running = evidenceOf(folder, flags, words).finally(() => {
    over = true;
  });
  try {
    await until("all connects are over", () => over || readdirSync(folder).includes(`done-${project}`), 900_000);
    expect(over).toBe(false);
    const relay = relayOf(project);
    await until("descriptors go", () => readdirSync(`/proc/${relay}/fd`).length <= MOST_DESCRIPTORS);
    const rss = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${relay}/status`, "latin1"))?.[1];
    expect(Number(rss)).toBeLessThan(MOST_RSS_KB);
  } finally {
    rmSync(done, { force: true });
  }
  const { stdout, evidence } = await running;
  expect(stdout.trim()).toBe([0.4 * count, 0.2 * count, 0.4 * count, 0].join(" "));
  // Whatever came of each, it was the relay's, to the byte.
  const bytes = 4 * count;
  expect(evidence.coverage).toMatchObject([{ state: "relayed", flows: count, bytes_up: bytes }]);
  expect([evidence.escaped, evidence.notes]).toEqual([[], []]);
}
