// As interceptor-loss.test.ts, with more datagrams, two probabilities and five seeds.
import { beforeAll, describe, it } from "vitest";
import { scratchFolder } from "./cli-harness.js";
import { expectLoss } from "./support/loss.js";
import { Talker } from "./support/talk.js";

const MANY = 100_000;
const folder = scratchFolder();
let talker: Talker;

beforeAll(async () => {
  talker = await Talker.in(folder);
});

describe.each([0.01, 0.1])("a share of %f", (share) => {
  describe.each([11, 22, 33, 44, 55])("seed %i", (seed) => {
    it.each(["send", "sendto", "sendmsg", "sendmmsg", "write"])("%s", (call) =>
      expectLoss(talker, "uplink", call, MANY, share, seed),
    );
    it.each(["recv", "recvfrom", "recvmsg", "recvmmsg", "read"])("%s", (call) =>
      expectLoss(talker, "downlink", call, MANY, share, seed),
    );
  });
});
