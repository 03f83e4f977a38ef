// The servers that the real programs talk to: HTTP in this process, redis-server and postgres as processes of their own,
// each on a free loopback port with its files in a temporary folder, all gone when stop() returns. They run outside mishap.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect, createServer as createListener } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What every server answers: long enough for budgets and rates to show, with one word for mutations to find. */
export const BODY = `good${".".repeat(19_996)}`;
/** Has PostgreSQL answer BODY without the word being in the query. */
export const QUERY = "select 'go' || 'od' || repeat('.', 19996)";

export interface Servers {
  readonly httpPort: number;
  readonly redisPort: number;
  readonly postgresPort: number;
  stop(): Promise<void>;
}

async function freePort(): Promise<number> {
  const listener = createListener().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address() as AddressInfo;
  listener.close();
  await once(listener, "close");
  return port;
}

/** setpriv's flags for running as another user; none for running as oneself. */
function asUser(user: string | undefined): string[] {
  return user === undefined ? [] : [`--reuid=${user}`, `--regid=${user}`, "--clear-groups"];
}

/** Starts a server that ends with this process at the latest; resolves once it accepts. */
async function startServer(user: string | undefined, port: number, command: string[]): Promise<ChildProcess> {
  const stdio: ("ignore" | "pipe")[] = ["ignore", "ignore", "pipe"];
  const server = spawn("setpriv", ["--pdeathsig=INT", ...asUser(user), "--", ...command], { stdio });
  let said = "";
  server.stderr?.on("data", (data) => {
    said += data;
  });
  for (const deadline = performance.now() + 20_000; ; ) {
    const socket = connect(port, "127.0.0.1");
    const accepted = await once(socket, "connect").then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (accepted) return server;
    if (server.exitCode !== null || performance.now() > deadline) {
      server.kill("SIGKILL");
      throw new Error(`${command[0]} did not start: ${said}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function stopServer(server: ChildProcess | undefined): Promise<void> {
  if (server === undefined || server.exitCode !== null || server.signalCode !== null) return;
  server.kill("SIGINT"); // for postgres: end the sessions and go
  await once(server, "exit");
}

/** The folder of the newest PostgreSQL's programs, which Debian keeps out of the path. */
function postgresPrograms(): string {
  const root = "/usr/lib/postgresql";
  const newest = readdirSync(root).sort((a, b) => Number(b) - Number(a))[0];
  if (newest === undefined) throw new Error(`no PostgreSQL in ${root}`);
  return join(root, newest, "bin");
}

export async function startServers(): Promise<Servers> {
  const folder = mkdtempSync(join(tmpdir(), "mishap-servers-"));
  const http = createServer((_request, response) => {
    response.writeHead(200, { "content-length": BODY.length }).end(BODY);
  }).listen(0, "127.0.0.1");
  const started: ChildProcess[] = [];
  const stop = async () => {
    http.closeAllConnections();
    http.close();
    await Promise.all(started.map(stopServer));
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await once(http, "listening");
    const redisPort = await freePort();
    const redisFlags = ["--port", `${redisPort}`, "--bind", "127.0.0.1", "--save", "", "--dir", folder];
    started.push(await startServer(undefined, redisPort, ["redis-server", ...redisFlags]));
    execFileSync("redis-cli", ["-p", `${redisPort}`, "SET", "body", BODY], { stdio: "ignore" });

    // PostgreSQL refuses to run as root.
    const user = process.getuid?.() === 0 ? "postgres" : undefined;
    const data = join(folder, "postgres");
    mkdirSync(data, { mode: 0o700 });
    if (user !== undefined) {
      chmodSync(folder, 0o755);
      const id = (flag: string) => Number(execFileSync("id", [flag, user], { encoding: "utf8" }));
      chownSync(data, id("-u"), id("-g"));
    }
    const programs = postgresPrograms();
    const initdb = [join(programs, "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "--locale=C"];
    execFileSync("setpriv", [...asUser(user), "--", ...initdb], { cwd: "/", stdio: "ignore" });
    const postgresPort = await freePort();
    const flags = ["-D", data, "-h", "127.0.0.1", "-p", `${postgresPort}`, "-k", "", "-F"];
    started.push(await startServer(user, postgresPort, [join(programs, "postgres"), ...flags]));
    return { httpPort: (http.address() as AddressInfo).port, redisPort, postgresPort, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
