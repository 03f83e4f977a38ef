/**
 * Ports that the kernel gives to whoever asks for any are others in each run, and a flow is known by its peer's port.
 * Where a recording's flows differ without them all the same, a replay leaves them out of identities:
 * `tcp:127.0.0.1:*#1@0`.
 */

/** A peer on this host, in the words of native/interceptor/sockets.cpp, and its port. */
const PEER_HERE = /^(tcp|udp):(127\.[^:]*|localhost|\[0:0:0:0:0:0:0:1\]|listen):(\d+)#/;
/** From here on (ip_local_port_range). */
const FIRST = 32_768;

/** A flow's identity in words, without a port that passes. */
export function withoutPassingPort(words: string): string {
  return words.replace(PEER_HERE, (whole, protocol: string, peer: string, port: string) =>
    Number(port) >= FIRST ? `${protocol}:${peer}:*#` : whole,
  );
}

/** Whether all of these are told apart without such ports. */
export function tellApartWithout(flows: readonly string[]): boolean {
  return new Set(flows.map(withoutPassingPort)).size === new Set(flows).size;
}
