// Loss of datagrams, by every call that sends or receives: the share that was asked for, silent to the program, and
// evidence that agrees to the datagram with what a peer outside counted.
import { beforeAll, describe, it } from "vitest";
import { scratchFolder } from "./cli-harness.js";
import { expectLoss } from "./support/loss.js";
import { Talker } from "./support/talk.js";

const MANY = 20_000;
const folder = scratchFolder();
let talker: Talker;

beforeAll(async () => {
  talker = await Talker.in(folder);
});

describe(`10 % of ${MANY} datagrams`, () => {
  it.each(["send", "sendto", "sendmsg", "sendmmsg", "write"])("%s", (call) =>
    expectLoss(talker, "uplink", call, MANY, 0.1, 1),
  );
  it.each(["recv", "recvfrom", "recvmsg", "recvmmsg", "read"])("%s", (call) =>
    expectLoss(talker, "downlink", call, MANY, 0.1, 1),
  );
});
