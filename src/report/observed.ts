/**
 * A flow as `mishap observe` tells of it, described once: the type that the table is made from, and the lines of
 * `--json`, whose fields docs/observe.md lists; a test holds the page to this file. Only the types are used at run time.
 */

import { z } from "zod";

const count = (description: string) => z.int().min(0).describe(description);
const perhaps = (description: string) => z.int().min(0).optional().describe(description);

/** The schema of one line. */
export const observedFlowSchema = z
  .strictObject({
    time: z.iso.datetime().describe("when the look was taken, UTC"),
    cookie: z.string().describe("the kernel's number of the socket; no other socket ever has it"),
    pid: z.int().min(0).describe("the process that owns it; 0: not known"),
    program: z.string().describe("its program, as in `/proc/PID/comm`; empty: not known"),
    state: z
      .enum(["intercepted", "escaped", "unknown"])
      .describe(
        "whether the interceptor carries it; `unknown`: its process was gone, or hidden, before it was looked at",
      ),
    protocol: z.enum(["tcp", "udp"]).describe("`tcp` or `udp`"),
    role: z
      .enum(["connector", "acceptor", "datagram"])
      .describe("which end of a connection it is: `connector` or `acceptor`; `datagram`: neither"),
    open: z.boolean().describe("`false` once, when it was closed since the look before"),
    tcp_state: z.string().optional().describe("TCP only: the connection's state, such as `ESTABLISHED`"),
    local: z.string().describe("address and port at this end"),
    peer: z.string().describe("address and port at the other end; `*:*`: a datagram socket without one"),
    age_ms: perhaps("since the socket was made or first seen, in milliseconds; absent where neither was"),
    bytes_up: count("bytes sent since the watch began"),
    bytes_down: count("bytes received since the watch began"),
    bytes_up_per_s: count("bytes sent a second since the look before"),
    bytes_down_per_s: count("bytes received a second since the look before"),
    ops_up: count("calls that sent something"),
    ops_down: count("calls that received something"),
    rtt_us: perhaps("TCP's smoothed round trip in microseconds; absent until there is one"),
    retransmits: count("segments sent again"),
    resets: count("RSTs sent and received"),
    failures: count("sends that failed"),
  })
  .describe("one flow at one look");

/** One flow at one look. */
export type ObservedFlow = z.infer<typeof observedFlowSchema>;
