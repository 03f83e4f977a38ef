/**
 * `npm run demo`: the main job in a few seconds. A small HTTP server of the demo's own, a client that fetches from it
 * under `mishap run`, what the client saw line by line, and the evidence; exits 0 only when the two agree.
 */

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Evidence } from "./report/schema.js";

const FETCHES = 20;
const LATENCY_MS = 100;
const FLAGS = ["--latency", `${LATENCY_MS}ms`, "--connection-error", "refused:10%", "--seed", "0x7f3a"];
const MISHAP = fileURLToPath(new URL("./cli/main.js", import.meta.url));

/** The port is part of what a draw hangs on: the same one, where it is free, makes the demo repeat. */
const FIRST_PORT = 18480;
const SERVER = `
  const server = require("node:http").createServer((_, answer) => answer.end("hello"));
  const listen = (port) => server.listen(port, "127.0.0.1");
  let port = ${FIRST_PORT};
  server.on("error", (error) => (error.code === "EADDRINUSE" && port < ${FIRST_PORT} + 100 ? listen(++port) : process.exit(1)));
  server.on("listening", () => console.log(port));
  listen(port);`;

/** Ends each line with how it went: `refused`, or the time it took. Uses curl where there is one. */
const CLIENT = `
  const { spawnSync } = require("node:child_process");
  const http = require("node:http");
  const url = process.argv[1];
  const byCurl = () => {
    const format = "%{time_connect} %{time_total} %{http_code}";
    const { status, stdout } = spawnSync("curl", ["-s", "-o", "/dev/null", "-w", format, url], { encoding: "utf8" });
    const [connect, total, code] = stdout.split(" ");
    return { status, text: "connected after " + ms(connect) + ", HTTP " + code + " after " + ms(total) };
  };
  const ms = (seconds) => Math.round(seconds * 1000) + " ms";
  const byNode = () => new Promise((done) => {
    const began = performance.now();
    http.get(url, { agent: false }, (answer) => answer.resume().on("end", () => {
      done({ status: 0, text: "HTTP " + answer.statusCode + " after " + Math.round(performance.now() - began) + " ms" });
    })).on("error", (error) => done({ status: error.code === "ECONNREFUSED" ? 7 : 1, text: error.message }));
  });
  const hasCurl = spawnSync("curl", ["--version"]).status === 0;
  (async () => {
    for (let i = 1; i <= ${FETCHES}; i++) {
      const { status, text } = hasCurl ? byCurl() : await byNode();
      const went = status === 0 ? text : status === 7 ? "connection refused" : "failed: " + text;
      console.log("  fetch " + String(i).padStart(2) + "  " + went);
    }
  })();`;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Starts the server in a process of its own; answers its address and how to end it. */
function startServer(): Promise<{ url: string; stop: () => void }> {
  const server = spawn(process.execPath, ["-e", SERVER], { stdio: ["ignore", "pipe", "inherit"] });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.once("exit", () => reject(new Error("the demo's server could not listen on this machine")));
    server.stdout.once("data", (port) => {
      resolve({ url: `http://127.0.0.1:${String(port).trim()}/`, stop: () => server.kill() });
    });
  });
}

/** Runs mishap with its output shown; answers what the program printed. */
function runMishap(args: readonly string[]): Promise<{ code: number; stdout: string }> {
  const child = spawn(process.execPath, [MISHAP, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  let stdout = "";
  child.stdout.on("data", (data) => {
    stdout += String(data);
    process.stdout.write(data);
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code: code ?? 125, stdout }));
  });
}

/** What the evidence and the client's own output have to agree on; empty when they do. */
function disagreements({ faults }: Evidence, stdout: string): string[] {
  const latency = faults.find(({ fault }) => fault === "latency");
  const refusals = faults.find(({ fault }) => fault === "connection_error");
  const refused = stdout.split("connection refused").length - 1;
  const found: string[] = [];
  if (!latency?.applied || (latency.p50_ns ?? 0) < LATENCY_MS * 1e6)
    found.push("the evidence does not show the latency asked for");
  if (refusals?.applied !== refused)
    found.push(`the client saw ${refused} refusals, the evidence ${refusals?.applied ?? 0}`);
  if (stdout.includes("failed:")) found.push("a fetch failed for another reason");
  return found;
}

const folder = mkdtempSync(join(tmpdir(), "mishap-demo-"));
const server = await startServer();
try {
  say(`$ mishap run ${FLAGS.join(" ")} -- ${FETCHES} fetches of ${server.url}\n`);
  const file = join(folder, "evidence.json");
  const { code, stdout } = await runMishap([
    "run",
    ...FLAGS,
    "--json",
    file,
    "--",
    process.execPath,
    "-e",
    CLIENT,
    server.url,
  ]);
  const evidence = JSON.parse(readFileSync(file, "utf8")) as Evidence;
  const wrong = disagreements(evidence, stdout);
  say(`
Each way takes ${LATENCY_MS} ms longer: the connect ${2 * LATENCY_MS} ms, the request and its answer another ${2 * LATENCY_MS} ms.
One connect in ten is drawn to be refused; the server never saw those, and the same seed draws the same ones again.
Above is the evidence: asked against delivered, by the clock and by count, and it agrees with what the client saw.`);
  for (const sentence of wrong) say(`demo: ${sentence}`);
  process.exitCode = code === 0 && wrong.length === 0 ? 0 : 1;
} finally {
  server.stop();
  rmSync(folder, { recursive: true });
}
