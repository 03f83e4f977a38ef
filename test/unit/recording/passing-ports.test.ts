// Which ports are no part of a flow's identity in a replay.
import { describe, expect, it } from "vitest";
import { tellApartWithout, withoutPassingPort } from "../../../src/recording/passing-ports.js";

describe("a port that passes", () => {
  it.each([
    ["tcp:127.0.0.1:40001#1@0", "tcp:127.0.0.1:*#1@0"],
    ["udp:localhost:32768#2@0.1/2", "udp:localhost:*#2@0.1/2"],
    ["tcp:[0:0:0:0:0:0:0:1]:60999#1@0", "tcp:[0:0:0:0:0:0:0:1]:*#1@0"],
    ["tcp:listen:45000#3@0", "tcp:listen:*#3@0"],
  ])("is left out of %s", (words, without) => {
    expect(withoutPassingPort(words)).toBe(without);
  });

  it.each([
    "tcp:127.0.0.1:8080#1@0",
    "tcp:127.0.0.1:32767#1@0",
    "tcp:10.0.0.7:40001#1@0",
    "tcp:api.internal:40001#1@0",
    "unix:/run/127.0.0.1:40001#1@0",
    "dns:127.0.0.1:40001#1@0",
    "",
  ])("is none in %s", (words) => {
    expect(withoutPassingPort(words)).toBe(words);
  });

  it("is left out where flows are told apart without it", () => {
    expect(tellApartWithout(["tcp:127.0.0.1:40001#1@0", "tcp:127.0.0.1:40001#2@0", "tcp:127.0.0.1:80#1@0"])).toBe(true);
    expect(tellApartWithout(["tcp:127.0.0.1:40001#1@0", "tcp:127.0.0.1:40002#1@0"])).toBe(false);
    expect(tellApartWithout(["tcp:127.0.0.1:80#1@0"])).toBe(true);
  });
});
