// The soak: nginx under latency, jitter and loss, with wrk at 64 connections, for ten minutes. Prints the memory of nginx and
// of the courier as it goes, and at the end what wrk saw and whether a connection is stuck.
//
//   npm run soak [-- --minutes=10]
import { execFileSync } from "node:child_process";
import { freePort, Stage, sleep } from "./matrix/processes.mjs";
import { nginx } from "./matrix/rows.mjs";

const minutes = Number(process.argv.find((each) => each.startsWith("--minutes="))?.slice("--minutes=".length) ?? 10);
const FLAGS = ["--latency", "20ms", "--jitter", "5ms", "--packet-loss", "1%", "--seed", "1"];
const EVERY_S = 30;

const established = (port) =>
  execFileSync("ss", ["-Htn", "state", "established", `( sport = :${port} )`], { encoding: "utf8" }).split("\n")
    .length - 1;

const stage = new Stage(FLAGS);
try {
  const port = await freePort();
  const [command, options] = nginx.start(stage, port);
  const server = stage.startSubject(command, options);
  await stage.accepting(server, port);
  const load = ["-t1", "-c64", `-d${minutes * 60}s`, "--timeout", "10s", "--latency", `http://127.0.0.1:${port}/`];
  const wrk = stage.start(["wrk", ...load]);
  console.log("| after | nginx, kB | courier, kB |\n|---|---|---|");
  const started = performance.now();
  for (let at = 1; wrk.running; at++) {
    while (wrk.running && performance.now() - started < at * EVERY_S * 1000) await sleep(200);
    const { program, courier } = server.residentKb();
    console.log(`| ${Math.round((performance.now() - started) / 1000)} s | ${program} | ${courier} |`);
  }
  const said = await wrk.finish();
  await sleep(2000); // what is under way arrives
  const left = established(port);
  console.log(`\n${said}\nconnections left when wrk had ended: ${left}`);
  const notes = await stage.end();
  for (const note of notes) console.log(`note: ${note}`);
  process.exitCode = left === 0 && !/Socket errors|Non-2xx/.test(said) ? 0 : 1;
} catch (error) {
  await stage.abandon();
  console.error(`soak: ${error.message}`);
  process.exitCode = 1;
}
