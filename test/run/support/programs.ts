// The small programs in test/programs, compiled for a test file, and the peers outside mishap that they talk to.
import { execFile } from "node:child_process";
import { randomInt } from "node:crypto";
import { createSocket, type Socket as Datagrams } from "node:dgram";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll } from "vitest";

const run = promisify(execFile);
const sources = fileURLToPath(new URL("../../programs/", import.meta.url));

/** Compiles one of the test programs into a folder and answers its path. */
export async function compile(folder: string, source: string, ...options: string[]): Promise<string> {
  const program = join(folder, source.replace(/\.\w+$/, ""));
  const compiler = source.endsWith(".cpp") ? ["g++", "-std=c++20"] : ["gcc", "-std=gnu17"];
  const [command = "", standard = ""] = compiler;
  await run(command, [
    standard,
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-o",
    program,
    join(sources, source),
    "-pthread",
    ...options,
  ]);
  return program;
}

/** A server outside mishap. */
export interface Peer {
  readonly port: number;
  /** Every byte that came, of all connections or datagrams in order of arrival. */
  readonly received: Buffer[];
  /** How each connection ended: `end` for a FIN, else the error's code. */
  readonly endings: string[];
}

function listening(server: Server): Promise<number> {
  afterAll(() => {
    server.close();
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port)));
}

/** Echoes what it gets. Told "call PORT\n" it connects to that port and echoes there. */
export async function echoServer(): Promise<Peer> {
  const peer = { port: 0, received: [] as Buffer[], endings: [] as string[] };
  const echo = (socket: ReturnType<typeof connect>): void => {
    socket.setNoDelay(true);
    let ended = "end";
    socket.on("error", (error: NodeJS.ErrnoException) => {
      ended = error.code ?? "error";
    });
    socket.on("close", () => peer.endings.push(ended));
    socket.on("data", (data: Buffer) => {
      peer.received.push(data);
      const call = /^call (\d+)\n/.exec(data.toString("latin1"));
      if (call === null) socket.write(data);
      else echo(connect(Number(call[1]), "127.0.0.1"));
    });
  };
  peer.port = await listening(createServer(echo));
  return peer;
}

/** A port that no one is bound to: part of a flow's identity, so that two runs have to use the same. */
export async function freePort(): Promise<number> {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(() => resolve()));
  return port;
}

/**
 * A port to listen on that nobody does. It is none of those that the kernel gives to whoever asks for any
 * (ip_local_port_range): a connection of another test may have got that one by the time it is used.
 */
export async function freeTcpPort(): Promise<number> {
  for (;;) {
    const [server, port] = [createServer(), randomInt(20_000, 32_000)];
    const free = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false)).listen(port, "::", () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

/** Counts datagrams and answers each with as many as `answers` gives for it. */
export async function datagramPeer(
  answers: (request: Buffer) => readonly (string | Buffer)[] = () => [],
): Promise<Peer> {
  const peer = { port: 0, received: [] as Buffer[], endings: [] as string[] };
  const socket: Datagrams = createSocket({ type: "udp4", recvBufferSize: 4 << 20 });
  socket.on("message", (message, from) => {
    peer.received.push(message);
    for (const answer of answers(message)) socket.send(answer, from.port, from.address);
  });
  afterAll(() => {
    socket.close();
  });
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  peer.port = socket.address().port;
  return peer;
}

/** A name server that gives every name the address 192.0.2.7. */
export function nameServer(): Promise<Peer> {
  return datagramPeer((query) => {
    const question = query.subarray(0, query.indexOf(0, 12) + 5);
    const answer = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
    const header = Buffer.from([query[0] ?? 0, query[1] ?? 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    return [Buffer.concat([header, question.subarray(12), answer])];
  });
}
