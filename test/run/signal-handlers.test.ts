// Calls from signal handlers that interrupt the interceptor pass through; those that concern it are counted.
import { expect, it } from "vitest";
import { evidenceOf, scratchFolder } from "./cli-harness.js";

const folder = scratchFolder();

/**
 * Python writes to its wake-up descriptor from within the handler, here while the interceptor is mostly inside epoll_ctl:
 * each time to a new one, which nothing was written to yet.
 */
const interrupted = (made: "piped" | "connected"): string => `
import os, select, signal, socket, time

receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))

def piped():
    read, write = os.pipe()
    return write

def connected():
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(receiver.getsockname())
    return sender.detach()

def renew(*_):
    fd = ${made}()
    os.set_blocking(fd, False)
    signal.set_wakeup_fd(fd, warn_on_full_buffer=False)

renew()
signal.signal(signal.SIGALRM, renew)
signal.setitimer(signal.ITIMER_REAL, 0.004, 0.004)
watched, poll = socket.socketpair()[0], select.epoll()
poll.register(watched, select.EPOLLIN)
end = time.monotonic() + 1
while time.monotonic() < end:
    poll.modify(watched, select.EPOLLIN)
signal.setitimer(signal.ITIMER_REAL, 0)
signal.set_wakeup_fd(-1)
`;

/** What evidence says of calls that passed through. */
async function passed(made: "piped" | "connected"): Promise<string[]> {
  const { code, evidence } = await evidenceOf(folder, ["--packet-loss", "1%"], ["python3", "-c", interrupted(made)]);
  expect(code).toBe(0);
  return evidence.notes.filter((note) => note.includes("passed through"));
}

it("writing to a pipe is none of the interceptor's business", async () => {
  expect(await passed("piped")).toEqual([]);
});

it("sending is counted as not faulted", async () => {
  expect(await passed("connected")).toEqual([expect.stringMatching(/^\d+ calls .* a call came from a signal handler/)]);
});
