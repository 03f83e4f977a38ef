/**
 * What of mishap works on this machine, found out by trying it: each check does the thing itself, and says what its
 * answer means for a run.
 */

import { spawn, spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, statfsSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { compile, parsePolicy } from "../policy/index.js";
import { native, SEGMENT_DIRECTORY, Segment } from "../segment/index.js";
import { INTERCEPTOR_PATH, preloadEnvironment, preparePreload } from "./preload.js";

/** One answer. */
export interface Check {
  readonly name: string;
  readonly ok: boolean;
  /** What was found. */
  readonly found: string;
  /** What that means for a run, where it is not ok. */
  readonly meaning?: string;
}

const OLDEST_NODE = [20, 17] as const;
const SEGMENT_ROOM_BYTES = 8 * 1024 * 1024;
const PATIENCE_MS = 5000;

/** Tries everything a run needs. */
export async function diagnose(): Promise<Check[]> {
  return [checkNode(), checkSharedMemory(), checkInterceptor(), await checkSocketListing(), await checkArrivals()];
}

function checkNode(): Check {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const ok = major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1]);
  return {
    name: "Node",
    ok,
    found: `${process.version} on ${process.arch}`,
    ...(ok ? {} : { meaning: `mishap needs Node ${OLDEST_NODE.join(".")} or later` }),
  };
}

function checkSharedMemory(): Check {
  const name = "shared memory";
  try {
    accessSync(SEGMENT_DIRECTORY, constants.W_OK | constants.X_OK);
    const { bavail, bsize } = statfsSync(SEGMENT_DIRECTORY);
    const free = bavail * bsize;
    const found = `${SEGMENT_DIRECTORY} is writable, ${Math.floor(free / 1_000_000)} MB free`;
    if (free >= SEGMENT_ROOM_BYTES) return { name, ok: true, found };
    return { name, ok: false, found, meaning: "runs get smaller tables than usual, and say so in evidence" };
  } catch (error) {
    return {
      name,
      ok: false,
      found: words(error),
      meaning: `no run can start; ${SEGMENT_DIRECTORY} has to be writable`,
    };
  }
}

/** Runs true(1) under a segment and looks whether it registered there. */
function checkInterceptor(): Check {
  const name = "interceptor";
  const meaning = "programs run unfaulted; `npm run build` builds the interceptor";
  if (!existsSync(INTERCEPTOR_PATH)) return { name, ok: false, found: `${INTERCEPTOR_PATH} is not there`, meaning };
  let segment: Segment | undefined;
  try {
    segment = Segment.create({ project: "doctor", seed: 0n });
    segment.activate(-1);
    const preload = preparePreload(segment.path);
    const env = preloadEnvironment(process.env, preload.path, segment.path);
    const result = spawnSync("/bin/true", [], { env, encoding: "utf8", timeout: PATIENCE_MS });
    preload.remove();
    const registered = segment.processes().length > 0;
    const ok = result.status === 0 && registered;
    const why =
      result.stderr.trim().split("\n")[0] || (result.status === 0 ? "it did not register" : "the program failed");
    return { name, ok, found: ok ? "loads into /bin/true and registers" : why, ...(ok ? {} : { meaning }) };
  } catch (error) {
    return { name, ok: false, found: words(error), meaning };
  } finally {
    segment?.close({ unlink: true });
  }
}

/** Makes a connection and looks for it in the kernel's own listing. */
async function checkSocketListing(): Promise<Check> {
  const name = "socket listing";
  const meaning = "flows that escape the interceptor (static or setuid children) cannot be named";
  try {
    const port = await withConnection(
      (localPort) => native.listSockets().some(({ local }) => local.port === localPort) && localPort,
    );
    if (port !== false) return { name, ok: true, found: "sock_diag finds a connection by its port" };
    return { name, ok: false, found: "sock_diag does not show a connection that was just made", meaning };
  } catch (error) {
    return { name, ok: false, found: words(error), meaning };
  }
}

function withConnection<T>(look: (localPort: number) => T): Promise<T> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.on("error", () => {}));
    let client: Socket | undefined;
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      client = connect(port, "127.0.0.1", () => {
        try {
          resolve(look(client?.localPort ?? 0));
        } catch (error) {
          reject(error);
        } finally {
          client?.destroy();
          server.close();
        }
      });
      client.on("error", reject);
    });
  });
}

const PROBE_LATENCY_MS = 20;
/** Connects, waits for the answer, and says how long the answer took. */
const PROBE_CLIENT = `
  const started = performance.now();
  require("node:net").connect(+process.argv[1], "127.0.0.1").end("?").on("data", () => {
    process.stdout.write(String(performance.now() - started));
  });`;

/** Delays a real answer, and looks whether the kernel dated its arrival. */
async function checkArrivals(): Promise<Check> {
  const name = "arrival times";
  const meaning = "downlink delays are counted from the moment the program asks, not from the true arrival";
  if (!existsSync(INTERCEPTOR_PATH))
    return { name, ok: false, found: "there is no interceptor to try it with", meaning };
  let segment: Segment | undefined;
  try {
    segment = Segment.create({ project: "doctor", seed: 0n });
    const policy = parsePolicy({ latency: `${PROBE_LATENCY_MS}ms` });
    const { row } = compile("doctor", policy, { runSeed: 0n });
    segment.publish(0, { ...row }, []);
    segment.activate(0);
    const elapsedMs = await probeUnder(segment);
    const dated = segment.flows().some((flow) => flow.dated === 1);
    // A round trip to connect and one for the answer.
    const late = elapsedMs >= 4 * PROBE_LATENCY_MS;
    const delays = `${PROBE_LATENCY_MS} ms each way took ${elapsedMs.toFixed(1)} ms for two round trips`;
    if (late && dated) return { name, ok: true, found: `the kernel dates arrivals; ${delays}` };
    return { name, ok: false, found: late ? "the kernel does not date arrivals" : delays, meaning };
  } catch (error) {
    return { name, ok: false, found: words(error), meaning };
  } finally {
    segment?.close({ unlink: true });
  }
}

/** Milliseconds that a small client measures against a server of this process. */
function probeUnder(segment: Segment): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.on("error", () => {}).once("data", () => socket.end("!")));
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? String(address.port) : "0";
      const preload = preparePreload(segment.path);
      const client = spawn(process.execPath, ["-e", PROBE_CLIENT, port], {
        env: preloadEnvironment(process.env, preload.path, segment.path),
        stdio: ["ignore", "pipe", "ignore"],
        timeout: PATIENCE_MS,
      });
      let said = "";
      client.stdout.on("data", (data) => {
        said += String(data);
      });
      client.on("error", reject);
      client.on("close", () => {
        server.close();
        preload.remove();
        if (said === "") reject(new Error("a client under the interceptor got no answer"));
        else resolve(Number(said));
      });
    });
  });
}

function words(error: unknown): string {
  return error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
}
