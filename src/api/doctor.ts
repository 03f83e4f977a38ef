/**
 * What of mishap works on this machine, found out by trying it: each check does the thing itself, and says what its
 * answer means for a run.
 */

import { spawn, spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, statfsSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { probeHooks, WITHOUT } from "../kernel/hooks.js";
import type { KernelHook, KernelProbe } from "../kernel/words.js";
import { compile, parsePolicy } from "../policy/index.js";
import { type Courier, native, SEGMENT_DIRECTORY, Segment, startCourier } from "../segment/index.js";
import { INTERCEPTOR_PATH, preloadEnvironment, preparePreload } from "./preload.js";

/** One answer. */
export interface Check {
  readonly name: string;
  readonly ok: boolean;
  /** What was found. */
  readonly found: string;
  /** What that means, where it is not ok. */
  readonly meaning?: string;
  /** Only `mishap run --kernel` and `mishap observe` use it. */
  readonly optional?: true;
}

const OLDEST_NODE = [20, 17] as const;
const SEGMENT_ROOM_BYTES = 8 * 1024 * 1024;
const PATIENCE_MS = 5000;

/** Tries everything that a run needs, then what the kernel's side needs. */
export async function diagnose(): Promise<Check[]> {
  return [
    checkNode(),
    checkSharedMemory(),
    checkInterceptor(),
    await checkSocketListing(),
    await checkArrivals(),
    ...checkKernel(),
  ];
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
  let courier: Courier | undefined;
  try {
    segment = Segment.create({ project: "doctor", seed: 0n });
    courier = startCourier(segment.path);
    await courier.ready;
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
    courier?.dismiss();
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

/** The loader and what it finds; a loader that does not start can say nothing of the rest. */
function checkKernel(): Check[] {
  const name = "kernel loader";
  try {
    const probe = probeHooks();
    const loader: Check = { name, ok: true, found: `starts, with libbpf ${probe.facts.libbpf}`, optional: true };
    return [loader, ...checkFacts(probe), ...checkHooks(probe)];
  } catch (error) {
    const meaning =
      "`mishap run --kernel` and `mishap observe` do not work; `npm run build` builds the loader where it can";
    return [{ name, ok: false, found: words(error), meaning, optional: true }];
  }
}

function checkFacts({ facts }: KernelProbe): Check[] {
  const isRoot = process.geteuid?.() === 0;
  return [
    {
      name: "BTF",
      ok: facts.btf,
      found: facts.btf ? "the kernel describes its types" : "there is no /sys/kernel/btf/vmlinux",
      meaning: "no program can be fitted to this kernel; one built with CONFIG_DEBUG_INFO_BTF can take them",
    },
    {
      name: "cgroup2",
      ok: facts.cgroup2 !== null,
      found: facts.cgroup2 === null ? "it is not mounted" : `mounted at ${facts.cgroup2}`,
      meaning: "a run cannot have a cgroup of its own, which `mishap run --kernel` needs",
    },
    {
      name: "rights",
      ok: facts.rights,
      found: facts.rights
        ? "this user may load programs into the kernel"
        : isRoot
          ? "root, but without the capabilities: CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN"
          : "this user is not root",
      meaning: isRoot
        ? "the kernel's side cannot be loaded, as in a container that was given no such rights"
        : "run `sudo mishap doctor` to try them; `mishap run --kernel` and `mishap observe` ask sudo by themselves",
    },
  ].map(({ meaning, ...check }) => ({ ...check, optional: true, ...(check.ok ? {} : { meaning }) }));
}

/**
 * What each hook's absence means is said behind the last hook of its purpose, unless rights are all that lacks; a reason
 * that many share, once.
 */
function checkHooks({ facts, hooks }: KernelProbe): Check[] {
  const lacking = facts.rights ? hooks.filter(({ ok }) => !ok) : [];
  const lastOf = new Map(lacking.map((hook) => [hook.for, hook]));
  return hooks.map((hook, at) => ({
    name: hook.name,
    ok: hook.ok,
    found: foundOf(hook, hooks[at - 1]),
    optional: true,
    ...(lastOf.get(hook.for) === hook ? { meaning: WITHOUT[hook.for] } : {}),
  }));
}

function foundOf({ ok, for: purpose, reason = "the kernel gave no reason" }: KernelHook, before?: KernelHook): string {
  if (ok) return purpose;
  return `${purpose}: ${before?.reason === reason ? "the same" : reason}`;
}

function words(error: unknown): string {
  return error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
}
