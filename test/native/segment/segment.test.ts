// A segment's life: made, published to, read, put in force, and refused when it is not what it claims to be.
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { codec, layout, Segment, type StructValue } from "../../../src/segment/index.js";
import { kill9, soon, startOwner, useFolder } from "./support.js";

const folder = useFolder();
const small = {
  policies: 2,
  bindings: 64,
  processes: 64,
  owners: 64,
  flows: 256,
  events: 64,
  histograms: 24,
  decided: 1,
};
const create = () => Segment.create({ project: "demo", seed: 7n, directory: folder.path, capacities: small });

function zeros(struct: string): StructValue {
  return codec.decode(struct, new Uint8Array(codec.struct(struct).size));
}

describe("a segment", () => {
  it("is a private file of its own name, with its blocks reserved", () => {
    const segment = Segment.create({ project: "my app/ü", seed: 1n, directory: folder.path });
    const uid = process.geteuid?.();
    expect(segment.path).toMatch(new RegExp(`/mishap-${uid}-my_app__-[0-9a-f]{8}$`));
    const file = statSync(segment.path);
    expect(file.mode & 0o7777).toBe(0o600);
    expect(file.blocks * 512).toBeGreaterThanOrEqual(file.size);
    expect(segment.capacities).toEqual({
      policies: 256,
      bindings: 4096,
      processes: 1024,
      owners: 16384,
      flows: 16384,
      events: 1024,
      histograms: 256,
      decided: 1,
    });
    expect(segment.shrunk).toBe(false);
    segment.close({ unlink: true });
    expect(existsSync(segment.path)).toBe(false);
    segment.close({ unlink: true });
    expect(() => segment.header()).toThrow(/is closed$/);
  });

  it("is private whatever the umask says", () => {
    const before = process.umask(0o777);
    try {
      const segment = create();
      expect(statSync(segment.path).mode & 0o7777).toBe(0o600);
      segment.close({ unlink: true });
    } finally {
      process.umask(before);
    }
  });

  it("gives another opener what was published, rules and all", () => {
    const segment = create();
    const other = Segment.open(segment.path);
    expect(other.readRow(1)).toBeUndefined();
    expect(other.readTargets(1)).toEqual([]);
    const row = { ...zeros("Row"), name: `${"é".repeat(40)}`, seed: 99n, loss_mode: 1 };
    const targets = [443, 80].map((port) => ({
      ...zeros("Target"),
      port_low: [port],
      port_high: [port],
      port_ranges: 1,
    }));
    segment.publish(1, row, targets);

    const read = other.readRow(1);
    expect(read).toMatchObject({ seed: 99n, loss_mode: 1, target_count: 2, name: "é".repeat(31) });
    expect(other.readTargets(1).map((target) => (target.port_low as number[])[0])).toEqual([443, 80]);
    expect(other.readTargets(1, 1)).toHaveLength(1);
    segment.publish(1, { ...row, name: "next" }, []);
    expect(other.readRow(1)).toMatchObject({ name: "next", target_count: 0 });
    expect(() => segment.publish(2, row, [])).toThrow("policy 2 is outside the segment, which holds 2");
    expect(() => segment.publish(0, row, new Array(17).fill(targets[0]))).toThrow("at most 16 target rules");
    other.close({ unlink: false });
    segment.close({ unlink: true });
  });

  it("starts empty in every counter", () => {
    const segment = create();
    expect(segment.totals()).toEqual({ flows: 0, ops: 0 });
    expect(segment.carried()).toEqual(Array(2).fill({ units: [0, 0], ops: [0, 0], datagramSends: 0 }));
    expect(segment.stats(1)).toEqual(zeros("Stats"));
    expect(segment.histogram([1], "latency", ["uplink", "downlink"]).count).toBe(0);
    expect(segment.processes()).toEqual([]);
    expect(segment.drainJournal(16)).toHaveLength(0);
    expect(segment.check()).toBeUndefined();
    expect(() => segment.stats(2)).toThrow("outside the segment");
    expect(() => segment.histogram([0], "half_open", ["uplink"])).toThrow("half_open takes no time");
    expect(() => segment.histogram([0], "lag", ["uplink"])).toThrow('Fault has no "lag"; it has latency');
    segment.close({ unlink: true });
  });

  it("is in force from activate to pause, resume and retire", () => {
    const segment = Segment.create({
      project: "p",
      seed: 5n,
      journal: true,
      directory: folder.path,
      capacities: small,
    });
    const other = Segment.open(segment.path);
    expect([segment.inForce(), other.inForce()]).toEqual([false, false]);
    expect(() => other.activate(0)).toThrow("only the process that created");
    expect(() => segment.activate(2)).toThrow("outside the segment");
    segment.activate(1);
    expect(other.inForce()).toBe(true);
    const { headerJournal = 0 } = layout.constants;
    expect(other.header()).toMatchObject({
      owner_pid: process.pid,
      default_policy: 1,
      run_seed: 5n,
      flags: headerJournal,
      layout_hash: BigInt(layout.layoutHash),
    });
    expect(Segment.list(folder.path)).toEqual([
      { path: segment.path, project: "p", ownerPid: process.pid, state: "active", inForce: true },
    ]);
    segment.pause();
    expect(other.inForce()).toBe(false);
    segment.resume();
    expect(other.inForce()).toBe(true);
    other.retire();
    segment.resume();
    expect(segment.inForce()).toBe(false);
    expect(Segment.list(folder.path)).toMatchObject([{ state: "retired", inForce: false }]);
    other.close({ unlink: false });
    segment.close({ unlink: true });
  });

  it("keeps its lease while the event loop is busy, and loses it with close", async () => {
    const segment = create();
    const other = Segment.open(segment.path);
    segment.activate(0);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2500);
    expect(other.inForce()).toBe(true);
    segment.close({ unlink: true });
    expect(other.inForce()).toBe(false);
    expect(other.check()).toBe("it is not there");
    other.close({ unlink: false });
  });

  it("neither keeps its process alive nor is in the way of its end", async () => {
    const [child] = await startOwner(folder.path, "leave");
    const status = child.exitCode ?? (await new Promise((resolve) => child.once("exit", resolve)));
    expect(status).toBe(0);
  });

  it("is out of force at once when its owner is killed", async () => {
    const [child, path] = await startOwner(folder.path, "stay");
    const segment = Segment.open(path);
    expect(segment.inForce()).toBe(true);
    await kill9(child);
    expect(segment.inForce()).toBe(false);
    expect(segment.header().state).toBe(layout.enums.State?.active); // nobody said so: the lock did
    segment.close({ unlink: true });
  });

  it("is out of force when its owner stands still for longer than the lease", async () => {
    const [child, path] = await startOwner(folder.path, "stay");
    const segment = Segment.open(path);
    child.kill("SIGSTOP");
    expect(await soon(() => !segment.inForce(), 3000)).toBe(true);
    child.kill("SIGCONT");
    expect(await soon(() => segment.inForce(), 2000)).toBe(true);
    segment.close({ unlink: false });
  });

  it("says what is wrong with it once it is damaged", () => {
    const segment = create();
    truncateSync(segment.path, 4096);
    expect(segment.check()).toBe("it is shorter than its header says");
    expect(segment.stats(1).connects).toBe(0n); // and reading it is not the end of the process
    segment.close({ unlink: true });
  });
});

describe("opening refuses, in one sentence,", () => {
  const path = () => join(folder.path, "candidate");
  const good = () => {
    const segment = create();
    const bytes = readFileSync(segment.path);
    segment.close({ unlink: true });
    return bytes;
  };
  const write = (bytes: Uint8Array) => writeFileSync(path(), bytes, { mode: 0o600 });
  const refusal = () => {
    try {
      Segment.open(path()).close({ unlink: false });
    } catch (error) {
      return error instanceof Error ? error.message : "";
    }
    return "opened";
  };
  const says = (what: string) => `${path()} is not a usable segment: ${what}`;

  it("a file that is not there, and a link to one that is", () => {
    expect(refusal()).toBe(says("it is not there"));
    write(good());
    expect(refusal()).toBe("opened");
    symlinkSync(path(), join(folder.path, "link"));
    expect(() => Segment.open(join(folder.path, "link"))).toThrow("it is not there");
  });

  it("a file others may read, a folder, and another user's file", (context) => {
    write(good());
    chmodSync(path(), 0o640);
    expect(refusal()).toBe(says("it is not a regular file of this user with mode 0600"));
    mkdirSync(join(folder.path, "d"));
    expect(() => Segment.open(join(folder.path, "d"))).toThrow("is not a usable segment");
    if (process.geteuid?.() !== 0) context.skip("giving a file to another user needs root");
    chmodSync(path(), 0o600);
    chownSync(path(), 65534, 65534);
    expect(refusal()).toBe(says("it is not a regular file of this user with mode 0600"));
  });

  it("damage to the header, by its kind", () => {
    const field = (name: string) => codec.struct("Header").fields.find((one) => one.name === name)?.offset ?? -1;
    const damages: [string, string][] = [
      ["magic", "it does not start with mishap's magic"],
      ["abi_version", "it has another ABI version"],
      ["layout_hash", "it has another layout"],
      ["regions", "a region lies outside it"],
    ];
    for (const [name, sentence] of damages) {
      const bytes = good();
      bytes.writeUInt8(bytes.readUInt8(field(name)) ^ 0x55, field(name));
      write(bytes);
      expect(refusal(), name).toBe(says(sentence));
    }
  });

  it("an empty file and one cut short", () => {
    const bytes = good();
    for (const length of [0, 100, 576, bytes.length - 1]) {
      write(bytes.subarray(0, length));
      expect(refusal(), String(length)).toBe(says("it is shorter than its header says"));
    }
  });
});

describe("a file system short of room", () => {
  it("gets a smaller segment, or a sentence, and is left as it was", (context) => {
    const mount = join(folder.path, "small");
    mkdirSync(mount);
    const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], { encoding: "utf8" });
    if (mounted.status !== 0) context.skip(`mounting a small tmpfs needs root: ${mounted.stderr.trim()}`);
    try {
      const options = { project: "full", seed: 1n, directory: mount };
      const segment = Segment.create(options);
      expect(segment.shrunk).toBe(true);
      expect(segment.capacities.flows).toBeLessThan(16384);
      expect(segment.capacities.flows).toBeGreaterThanOrEqual(256);
      expect(segment.check()).toBeUndefined();
      expect(statSync(segment.path).size).toBeLessThanOrEqual(2 << 20);
      segment.close({ unlink: true });

      writeFileSync(join(mount, "filler"), new Uint8Array(1_800_000));
      expect(() => Segment.create(options)).toThrow(
        expect.objectContaining({
          code: "ENOSPC",
          message: expect.stringMatching(/^could not find room for the segment/),
        }),
      );
      expect(Segment.list(mount)).toEqual([]);
    } finally {
      spawnSync("umount", [mount]);
    }
  });
});
