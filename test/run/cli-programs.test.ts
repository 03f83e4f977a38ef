// Programs that no preload can enter are recognised before they start, still run, and their flows are named.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { type AddressInfo, createServer, type Server } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { preloadEnvironment, preparePreload } from "../../src/api/preload.js";
import { findProgram, inspectImage } from "../../src/api/program.js";
import { defaultProject } from "../../src/api/project.js";
import { inheritedFds } from "../../src/api/run.js";
import { evidenceOf, mishap, scratchFolder } from "./cli-harness.js";

const folder = scratchFolder();
const STATIC = join(folder, "static-client");
let server: Server;
let port = 0;

/** Connects to a port of this machine, says so, and stays for 600 ms. */
const CLIENT = `
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char** argv) {
  if (argc < 2) return 0;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
  inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, (struct sockaddr*)&to, sizeof to) != 0) return 9;
  if (write(1, "connected\\n", 10) != 10) return 8;
  usleep(600000);
  return 0;
}`;

/** Executes another program with an empty environment. */
const LAUNCHER = `
#include <unistd.h>
int main(int argc, char** argv) {
  char* none[] = {0};
  return argc > 1 ? execve(argv[1], argv + 1, none) : 1;
}`;

beforeAll(async () => {
  writeFileSync(join(folder, "launcher.c"), LAUNCHER);
  execFileSync("gcc", ["-static", "-o", join(folder, "static-launcher"), join(folder, "launcher.c")]);
  writeFileSync(join(folder, "client.c"), CLIENT);
  execFileSync("gcc", ["-static", "-o", STATIC, join(folder, "client.c")]);
  execFileSync("gcc", ["-o", join(folder, "dynamic-client"), join(folder, "client.c")]);
  server = createServer((socket) => socket.on("error", () => {}));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  port = (server.address() as AddressInfo).port;
});
afterAll(() => {
  server.close();
});

/** A copy of a program with one byte of its ELF header changed. */
function patched(name: string, offset: number, value: number): string {
  const path = join(folder, name);
  copyFileSync(join(folder, "dynamic-client"), path);
  execFileSync("dd", [`of=${path}`, "bs=1", `seek=${offset}`, "conv=notrunc", "status=none"], {
    input: Buffer.from([value]),
  });
  return path;
}

describe("a program that cannot be intercepted", () => {
  it("is recognised: static", () => expect(inspectImage(STATIC)).toBe("static"));
  it("is recognised: 32-bit", () => expect(inspectImage(patched("elf32", 4, 1))).toBe("32-bit"));
  it("is recognised: another processor", () => expect(inspectImage(patched("mips", 18, 8))).toBe("architecture"));
  it("is recognised: another libc", () => {
    const path = join(folder, "musl-client");
    execFileSync("gcc", ["-o", path, join(folder, "client.c"), "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"]);
    expect(inspectImage(path)).toBe("libc");
  });
  it("is recognised: setuid and setgid", ({ skip }) => {
    const path = join(folder, "setid");
    copyFileSync(join(folder, "dynamic-client"), path);
    if (process.getuid?.() === 0) chownSync(path, 1, 1);
    const foreign =
      process.getuid?.() === 0
        ? path
        : ["/usr/bin/passwd", "/bin/su", "/usr/bin/mount"].find((file) => existsSync(file));
    if (foreign === undefined) return skip("there is no setuid program here and only root can make one");
    if (foreign === path) chmodSync(path, 0o4755);
    expect(inspectImage(foreign)).toBe("setuid");
    if (foreign !== path) return;
    chmodSync(path, 0o2755);
    expect(inspectImage(path)).toBe("setgid");
  });
  it("is recognised behind its #! lines", () => {
    const inner = join(folder, "inner");
    writeFileSync(inner, `#!${STATIC}\n`);
    writeFileSync(join(folder, "outer"), `#! ${inner} argument\n`);
    for (const name of ["inner", "outer"]) chmodSync(join(folder, name), 0o755);
    expect(findProgram(join(folder, "outer"))).toEqual({
      path: join(folder, "outer"),
      image: STATIC,
      unreachable: "static",
    });
  });
  it("is none of these: dynamically linked, a script, the loader, a text", () => {
    writeFileSync(join(folder, "text"), "nothing\n");
    for (const path of [join(folder, "dynamic-client"), process.execPath, "/bin/sh", join(folder, "text")]) {
      expect(inspectImage(path)).toBeUndefined();
    }
    expect(
      statSync("/lib64/ld-linux-x86-64.so.2").isFile() && inspectImage("/lib64/ld-linux-x86-64.so.2"),
    ).toBeUndefined();
  });

  it("is said before it starts, runs, and its flow is named", async () => {
    const { code, stdout, stderr, evidence } = await evidenceOf(folder, ["--latency", "50ms"], [STATIC, String(port)]);
    expect(code).toBe(0);
    expect(stdout).toBe("connected\n");
    expect(stderr.split("\n")[0]).toBe(
      `mishap: ${STATIC} runs unfaulted: it is statically linked, so that no loader takes the interceptor in`,
    );
    expect(evidence.escaped).toEqual([
      { peer: `127.0.0.1:${port}`, pid: expect.any(Number), program: "static-client", reason: "static" },
    ]);
    expect(evidence.notes.join()).toContain("latency was asked for and never applied: the program is not intercepted");
    expect(stderr).toContain(`escaped  1 flow not intercepted: 127.0.0.1:${port} (pid `);
    const dry = await mishap("run", "--dry-run", STATIC);
    expect(dry.stderr).toContain("the program would run unfaulted, because it is statically linked");
  });
});

describe("a child that cannot be intercepted", () => {
  const escaped = (reason: string, program: string) => [
    { peer: `127.0.0.1:${port}`, pid: expect.any(Number), program, reason },
  ];

  it("is named with its flow, once", async () => {
    const { evidence } = await evidenceOf(folder, [], ["sh", "-c", `${STATIC} ${port}; true`]);
    expect(evidence.escaped).toEqual(escaped("static", "static-client"));
  });

  it("is found after its parent left it", async () => {
    const { evidence } = await evidenceOf(folder, [], ["sh", "-c", `(${STATIC} ${port} &) ; sleep 0.9`]);
    expect(evidence.escaped).toEqual(escaped("static", "static-client"));
  });

  it("is found in the place of a program that could be", async () => {
    const { evidence } = await evidenceOf(folder, [], ["sh", "-c", `exec ${STATIC} ${port}`]);
    expect(evidence.escaped).toEqual(escaped("static", "static-client"));
  });

  it("is found where a static program took the preload away; where an intercepted one tries, it stays", async () => {
    const client = `${folder}/dynamic-client ${port}`;
    const lost = await evidenceOf(folder, [], ["sh", "-c", `${folder}/static-launcher ${client}; true`]);
    expect(lost.evidence.escaped).toEqual(escaped("not attached", "dynamic-client"));
    const kept = await evidenceOf(folder, [], ["sh", "-c", `env -u LD_PRELOAD ${client}; true`]);
    expect(kept.evidence).toMatchObject({ escaped: [], flows: 1 });
  });

  it("is no escape without a network socket, nor is one that is intercepted", async () => {
    const { evidence } = await evidenceOf(
      folder,
      [],
      ["sh", "-c", `${STATIC} & ${folder}/dynamic-client ${port}; wait`],
    );
    expect(evidence.escaped).toEqual([]);
    expect(evidence.flows).toBe(1);
  });
});

describe("the library's path", () => {
  it("is linked where LD_PRELOAD could not hold it, and the link goes", () => {
    const awkward = mkdtempSync(join(folder, "a b:c-"));
    const library = join(awkward, "lib.so");
    writeFileSync(library, "");
    const segment = join(folder, "segment");
    const preload = preparePreload(segment, library);
    expect(preload.path).toBe(`${segment}.so`);
    expect(existsSync(preload.path)).toBe(true);
    preload.remove();
    expect(existsSync(preload.path)).toBe(false);
    rmSync(library);
    expect(() => preparePreload(segment, library)).toThrow("the interceptor is not built");
  });

  it("comes first, and once", () => {
    const environment = { LD_PRELOAD: "/x/other.so:/old/libmishap-interceptor.so /y/more.so", A: "1" };
    expect(preloadEnvironment(environment, "/l.so", "/s")).toMatchObject({
      A: "1",
      LD_PRELOAD: "/l.so:/x/other.so:/y/more.so",
      MISHAP_SEGMENT: "/s",
    });
  });
});

it("descriptors named in arguments are kept, the standard ones being kept anyway", () => {
  expect(inheritedFds(["cat", "/dev/fd/63", "--f=/proc/self/fd/5", "/dev/fd/1", "/dev/fdx/9", "/dev/fd/63"])).toEqual([
    63, 5,
  ]);
});

it("the default project is the nearest package's or repository's name, else the folder's", () => {
  const at = join(folder, "place");
  mkdirSync(join(at, "shop", "src"), { recursive: true });
  mkdirSync(join(at, "repo", ".git"), { recursive: true });
  mkdirSync(join(at, "repo", "deep"));
  writeFileSync(join(at, "shop", "package.json"), '{"name": "@me/shop"}');
  expect(defaultProject(join(at, "shop", "src"))).toBe("@me/shop");
  expect(defaultProject(join(at, "repo", "deep"))).toBe("repo");
  writeFileSync(join(at, "repo", "package.json"), "not json");
  expect(defaultProject(join(at, "repo"))).toBe("repo");
  symlinkSync(at, join(folder, "link"));
  expect(defaultProject(join(folder, "link"))).toBe("link");
});
