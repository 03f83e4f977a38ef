// mishap is invisible to the program it runs: exit codes, streams, descriptors, environment, signals, the terminal.
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { freshProject, MISHAP, mishap, processState, scratchFolder, start, startMishap, until } from "./cli-harness.js";
import { expectNoTrace } from "./support/traces.js";

const folder = scratchFolder();

function script(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  chmodSync(path, 0o755);
  return path;
}

describe("the exit code is", () => {
  it.each([
    ["the program's own", ["true"], 0],
    ["the program's own", ["sh", "-c", "exit 7"], 7],
    ["128 + 15 after SIGTERM", ["sh", "-c", "kill -TERM $$"], 143],
    ["128 + 9 after SIGKILL", ["sh", "-c", "kill -KILL $$"], 137],
    ["126 for what cannot be executed", ["/etc/passwd"], 126],
    ["126 for a folder", ["/tmp"], 126],
    ["127 for what is not there", ["no-such-program-anywhere"], 127],
    ["127 for a path that is not there", ["./no/such/program"], 127],
  ])("%s: %j", async (_, command, code) => {
    const project = freshProject();
    expect((await mishap("run", "--project", project, "--", ...command)).code).toBe(code);
    await expectNoTrace(project);
  });

  it("a script's with #!, without #!, and 126 when its interpreter is not there", async () => {
    const run = async (path: string) => (await mishap("run", "--quiet", path)).code;
    expect(await run(script("with", "#!/bin/sh\nexit 3\n"))).toBe(3);
    expect(await run(script("without", "exit 4\n"))).toBe(4);
    expect(await run(script("broken", "#!/no/such/shell\n"))).toBe(126);
  });
});

describe("the program has", () => {
  it("its standard streams, byte for byte", async () => {
    const input = randomBytes(1_000_000).toString("base64");
    const { stdout, stderr } = await startMishap(["run", "--quiet", "--", "cat"], { input }).finished;
    expect(stdout === input).toBe(true);
    expect(stderr).toBe("");
    expect((await mishap("run", "--quiet", "sh", "-c", "echo out; echo err >&2")).stderr).toBe("err\n");
  });

  it("its arguments and its name as given", async () => {
    const { stdout } = await mishap(
      "run",
      "--quiet",
      "--",
      "sh",
      "-c",
      'printf "%s|" "$0" "$@"',
      "--latency",
      "--",
      "a b",
      "",
    );
    expect(stdout).toBe("--latency|--|a b||");
  });

  it("the descriptors that its arguments name", () => {
    const line = `"${process.execPath}" "${MISHAP}" run --quiet -- cat <(echo one) <(echo two)`;
    const { stdout, stderr } = spawnSync("bash", ["-c", line], { encoding: "utf8" });
    expect(stderr).toBe("");
    expect(stdout).toBe("one\ntwo\n");
  });

  it("its environment, with what else was preloaded behind the interceptor", async () => {
    const env = { LD_PRELOAD: "/lib/x86_64-linux-gnu/libm.so.6", KEPT: "a=b c" };
    const { stdout } = await startMishap(["run", "--quiet", "--", "sh", "-c", 'echo "$LD_PRELOAD"; echo "$KEPT"'], {
      env,
    }).finished;
    expect(stdout).toMatch(/^[^:]*libmishap-interceptor\.so:\/lib\/x86_64-linux-gnu\/libm\.so\.6\na=b c\n$/);
  });

  it("default signal dispositions and nothing blocked", async () => {
    const { stdout } = await mishap("run", "--quiet", "--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status");
    expect(stdout.match(/0000000000000000/g)).toHaveLength(2);
  });
});

describe("a signal sent to mishap", () => {
  it.each(["TERM", "HUP", "INT", "QUIT", "USR1", "USR2", "WINCH"])("SIG%s reaches the program, once", async (name) => {
    const project = freshProject();
    const program = `trap 'echo got' ${name}; echo ready; n=0; while [ $n -lt 20 ]; do sleep 0.05; n=$((n+1)); done; exit 5`;
    const running = startMishap(["run", "--project", project, "--", "bash", "-c", program]);
    await running.says("ready");
    process.kill(running.pid, `SIG${name}`);
    const { code, stdout, stderr } = await running.finished;
    expect(stdout).toBe("ready\ngot\n");
    expect(code).toBe(5);
    expect(stderr).toContain("mishap: 0 flows");
    await expectNoTrace(project);
  });

  it("that ends the program is its exit code, with evidence", async () => {
    const running = startMishap(["run", "--", "sh", "-c", "echo ready; exec sleep 20"]);
    await running.says("ready");
    process.kill(running.pid, "SIGTERM");
    const { code, stderr } = await running.finished;
    expect(code).toBe(143);
    expect(stderr).toContain("mishap: 0 flows");
  });
});

/** Runs a Python script with a terminal at hand: `run(command, [(wait for, type)])` answers (output, exit status). */
function onTerminal(body: string): string {
  const library = `
import os, pty, sys, time, select
def run(command, steps, patience=15):
  pid, fd = pty.fork()
  if pid == 0: os.execvp(command[0], command)
  seen, at, deadline = b"", 0, time.time() + patience
  while time.time() < deadline:
    ready, _, _ = select.select([fd], [], [], 0.1)
    if ready:
      try: data = os.read(fd, 65536)
      except OSError: break
      if not data: break
      seen += data
    while at < len(steps) and steps[at][0] in seen:
      time.sleep(0.1); os.write(fd, steps[at][1]); at += 1
  status = os.waitpid(pid, 0)[1]
  return seen.decode(), os.waitstatus_to_exitcode(status)
mishap = [${JSON.stringify(process.execPath)}, ${JSON.stringify(MISHAP)}]
${body}`;
  const { stdout, stderr } = spawnSync("python3", ["-c", library], { encoding: "utf8", timeout: 40_000 });
  expect(stderr).toBe("");
  return stdout;
}

describe("on a terminal", () => {
  it("Ctrl-C reaches the program once, and evidence is printed", () => {
    const said = onTerminal(`
program = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done"
print(run(mishap + ["run", "--", "bash", "-c", program], [(b"ready", b"\\x03")]))`);
    expect(said.match(/interrupted/g)).toHaveLength(1);
    expect(said).toContain("mishap: 0 flows");
    expect(said).toMatch(/, 9\)\s*$/);
  });

  it("the program owns it: it reads what is typed, and what it sets stays", () => {
    const said = onTerminal(`
line = " ".join(mishap) + " run --quiet -- sh -c 'test -t 0 && echo ready; read line; echo read: $line; stty -echo'; stty -a"
print(run(["sh", "-c", line], [(b"ready", b"typed\\n")]))`);
    expect(said).toContain("read: typed");
    expect(said).toMatch(/[ \n]-echo /);
  });

  it("Ctrl-Z stops the run and the shell's fg continues it", () => {
    const said = onTerminal(`
line = " ".join(mishap) + " run --quiet -- sh -c 'echo ready; read line; echo read: $line'\\n"
steps = [(b"$ ", line.encode()), (b"ready", b"\\x1a"), (b"Stopped", b"fg\\n"), (b"fg\\r\\n", b"typed\\n"), (b"read: typed", b"exit\\n")]
os.environ["PS1"] = "$ "
print(run(["bash", "--norc", "-i"], steps))`);
    expect(said).toContain("Stopped");
    expect(said).toContain("read: typed");
  });
});

it("a program that is stopped stops mishap too, and continues with it", async () => {
  const running = startMishap([
    "run",
    "--quiet",
    "--",
    "sh",
    "-c",
    "echo $$; sleep 0.2; echo first; kill -STOP $$; echo second",
  ]);
  await running.says("first");
  await until("mishap stops", () => processState(running.pid) === "T");
  process.kill(running.pid, "SIGCONT");
  const { code, stdout } = await running.finished;
  expect(code).toBe(0);
  expect(stdout).toContain("second");
});

it("a dry run says what would happen and starts nothing", async () => {
  const marker = join(folder, "started");
  const end = await mishap(
    "run",
    "--dry-run",
    "--uplink.latency",
    "5ms",
    "--target",
    "tcp://10.0.0.0/8",
    "--",
    "touch",
    marker,
  );
  expect(end.code).toBe(0);
  for (const word of ["nothing was started", "uplink.latency 5ms", "tcp://10.0.0.0/8", "interceptor", "touch"]) {
    expect(end.stderr).toContain(word);
  }
  expect(existsSync(marker)).toBe(false);
});

it("works from a shell in the background", async () => {
  const line = `"${process.execPath}" "${MISHAP}" run --quiet -- sh -c 'sleep 0.2; exit 6' & wait $!`;
  expect((await start("sh", ["-c", line]).finished).code).toBe(6);
});
