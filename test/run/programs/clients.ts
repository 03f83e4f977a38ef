// The real programs: how each is called to fetch the servers' BODY, and what it says when something is wrong. Each says
// on stderr how long it took, as elapsed_s=SECONDS.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { QUERY, type Servers } from "./servers.js";

/** How a program reports a failure: its exit code, and what stands in its message. */
export interface Report {
  readonly code: number;
  readonly says: string;
}

export interface Client {
  readonly name: string;
  /** The command that fetches from a host. */
  command(host: string, servers: Servers): string[];
  readonly refused: Report;
  readonly nxdomain: Report;
  /** A connection that is reset within the answer. */
  readonly reset: Report;
  /** From connecting to the answer. */
  readonly roundTrips: number;
}

const script = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const http = (host: string, servers: Servers) => `http://${host}:${servers.httpPort}/`;
const DEBIAN_PYTHON = "/usr/bin/python3";
const PYTHON = existsSync(DEBIAN_PYTHON) ? DEBIAN_PYTHON : "python3";
/** For programs that say nothing of their time; exits as the program does. */
const TIMED = ["bash", "-c", 'TIMEFORMAT="elapsed_s=%R"; time "$0" "$@"'];

/** All clients; Java's class is in a folder that the caller compiled it to. */
export function clients(classes: string): Client[] {
  return [
    {
      name: "curl",
      // Its own times go to stderr, as those of the scripts here.
      command: (host, servers) => ["curl", "-sS", "-w", "%{stderr}elapsed_s=%{time_total}", http(host, servers)],
      refused: { code: 7, says: "Failed to connect" },
      nxdomain: { code: 6, says: "Could not resolve host" },
      reset: { code: 56, says: "Connection reset by peer" },
      roundTrips: 2,
    },
    {
      name: "wget",
      command: (host, servers) => [...TIMED, "wget", "--no-config", "--tries=1", "-O", "-", http(host, servers)],
      refused: { code: 4, says: "Connection refused" },
      nxdomain: { code: 4, says: "unable to resolve host address" },
      reset: { code: 4, says: "Connection reset by peer" },
      roundTrips: 2,
    },
    {
      name: "Python urllib",
      command: (host, servers) => [PYTHON, script("urllib_client.py"), http(host, servers)],
      refused: { code: 1, says: "[Errno 111] Connection refused" },
      nxdomain: { code: 1, says: "Name or service not known" },
      reset: { code: 1, says: "Connection reset by peer" },
      roundTrips: 2,
    },
    {
      name: "Python asyncio",
      command: (host, servers) => [PYTHON, script("asyncio_client.py"), http(host, servers)],
      refused: { code: 1, says: "[Errno 111]" },
      nxdomain: { code: 1, says: "Name or service not known" },
      reset: { code: 1, says: "Connection reset by peer" },
      roundTrips: 2,
    },
    {
      name: "Node fetch",
      command: (host, servers) => [process.execPath, script("fetch_client.mjs"), http(host, servers)],
      refused: { code: 1, says: "connect ECONNREFUSED" },
      nxdomain: { code: 1, says: "getaddrinfo ENOTFOUND" },
      reset: { code: 1, says: "read ECONNRESET" },
      roundTrips: 2,
    },
    {
      name: "Java HttpURLConnection",
      command: (host, servers) => [
        ...["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", classes, "UrlClient"],
        http(host, servers),
      ],
      refused: { code: 1, says: "ConnectException: Connection refused" },
      nxdomain: { code: 1, says: "UnknownHostException" },
      reset: { code: 1, says: "Connection reset" },
      roundTrips: 2,
    },
    {
      name: "redis-cli",
      command: (host, servers) => [...TIMED, "redis-cli", "-h", host, "-p", `${servers.redisPort}`, "GET", "body"],
      refused: { code: 1, says: "Connection refused" },
      nxdomain: { code: 1, says: "Name or service not known" },
      reset: { code: 1, says: "Connection reset by peer" },
      roundTrips: 2,
    },
    {
      name: "psql",
      command: (host, servers) => [
        ...TIMED,
        ...["psql", "-XAt", "-c", QUERY],
        `host=${host} port=${servers.postgresPort} user=postgres dbname=postgres`,
      ],
      refused: { code: 2, says: "Connection refused" },
      nxdomain: { code: 2, says: "could not translate host name" },
      reset: { code: 2, says: "server closed the connection unexpectedly" }, // libpq's words for ECONNRESET
      roundTrips: 4, // connect; may it be TLS; who it is; the query
    },
  ];
}
