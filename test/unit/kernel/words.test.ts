// What the loader says, and what is made of a loader that does not start: one sentence each.
import { describe, expect, it } from "vitest";
import { parseEnvironment } from "../../../src/kernel/invoker.js";
import { explainStderr } from "../../../src/kernel/loader.js";
import { parseLine } from "../../../src/kernel/words.js";

describe("a line of the loader's", () => {
  it("gives numbers of 64 bits as bigints", () => {
    const text =
      '{"flow":{"cookie":"18446744073709551615","pid":1,"tid":1,"process":"4294967301","program":"x","role":"datagram","protocol":"udp","open":true,"state":"","local":"[::1]:1","peer":"[::]:0","claimed":false,"relayed":false,"policy":-1,"reset":false,"created_ns":"7","bytes_up":1,"bytes_down":2,"ops_up":1,"ops_down":1,"rtt_us":0,"retransmits":0,"resets":0,"failures":0}}';
    expect(parseLine(text)).toMatchObject({ flow: { cookie: 2n ** 64n - 1n, process: 4294967301n, bytes_down: 2 } });
  });

  it("says why, as an error", () => {
    expect(parseLine('{"error":"no cgroup2"}')).toEqual({ error: "no cgroup2" });
  });

  it.each(["", "ready", '{"ready":false}', '{"joined":"12"}', '{"flow":{"cookie":"-1"}}', "[1"])(
    "of any other shape is refused in one sentence: %s",
    (text) => {
      expect(() => parseLine(text)).toThrow(/^it said ".*", which this version of mishap does not understand/);
    },
  );
});

describe("a loader that does not start", () => {
  it.each([
    [
      "mishap-loader: error while loading shared libraries: libbpf.so.1: cannot open shared object file: No such file",
      false,
      "libbpf.so.1, which it needs, is not installed; `apt-get install libbpf1`",
    ],
    [
      "sudo: a password is required\n",
      true,
      "it needs root, and sudo wants a password where there is no terminal to ask for it; `sudo -v` asks beforehand",
    ],
    ["eve is not in the sudoers file.\n", true, "it needs root, and sudo refused: eve is not in the sudoers file."],
    ["something odd\nand worse\n", false, "and worse"],
    ["", true, undefined],
  ])("%s", (stderr, throughSudo, sentence) => {
    expect(explainStderr(stderr, throughSudo)).toBe(sentence);
  });
});

it("an environment is read as /proc has it, values with = and empty ones included", () => {
  expect(parseEnvironment("A=1\0B=x=y\0C=\0=odd\0D\0")).toEqual({ A: "1", B: "x=y", C: "" });
});
