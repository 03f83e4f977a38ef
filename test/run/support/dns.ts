// A DNS server of the tests' own, and how a program is run so that its names are asked of it. Both need root.
import { createSocket, type Socket } from "node:dgram";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

/** An address of this host's that nobody else answers DNS at. */
const RESOLVER = "127.77.53.53";

/** Answers every question for an IPv4 address with 127.0.0.1, every other one with nothing. */
function answerOf(question: Buffer): Buffer {
  let end = 12;
  for (let length = question[end]; length; length = question[end]) end += length + 1;
  const asked = question.readUInt16BE(end + 1);
  const found = asked === 1 ? 1 : 0;
  const header = Buffer.from([0x81, 0x80, 0, 1, 0, found, 0, 0, 0, 0]);
  const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
  return Buffer.concat([question.subarray(0, 2), header, question.subarray(12, end + 5), ...(found ? [record] : [])]);
}

/** Starts it; to be closed. */
export async function serveNames(): Promise<Socket> {
  const server = createSocket("udp4");
  server.on("message", (message, from) => server.send(answerOf(message), from.port, from.address));
  await new Promise<void>((resolve) => server.bind(53, RESOLVER, resolve));
  return server;
}

/** What runs a program with that server as its own, by a file in this folder. */
export function askingIt(folder: string): string[] {
  const file = join(folder, "resolv.conf");
  writeFileSync(file, `nameserver ${RESOLVER}\noptions timeout:1 attempts:1\n`);
  return ["unshare", "--mount", "sh", "-c", `mount --bind ${file} /etc/resolv.conf && exec "$@"`, "sh"];
}
