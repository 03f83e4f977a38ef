/**
 * Ready-made policies: networks and faults with a name. A preset says where its figures come from; published ones are
 * round trips mostly, and a latency of mishap's is one way, so each is half of what its source says. What nobody
 * publishes is mishap's own choice, and said to be.
 */

import { nearest, PolicyError } from "./errors.js";
import { type Policy, type PolicyInput, parsePolicy } from "./schema.js";

/** A ready-made policy. */
export interface Preset {
  /** What it is like, in one line. */
  readonly description: string;
  /** Where the figures come from. */
  readonly source: string;
  readonly fields: PolicyInput;
}

const WEBPAGETEST = "WebPageTest, connectivity.ini.sample";
const FIREFOX = "Firefox, network throttling profiles";
const APPLE = "Apple, Network Link Conditioner";
const OWN = "mishap's own choice";

/** A line with a round-trip time, halved here, and a rate each way. */
function line(roundTripMs: number, down: string, up: string): PolicyInput {
  return { latency: `${roundTripMs / 2}ms`, uplink: { rate: up }, downlink: { rate: down } };
}

/** Every preset, by name. */
export const PRESETS: Readonly<Record<string, Preset>> = {
  dial_up: {
    description: "a 56k modem: 49/30 kbps, 120 ms round trip",
    source: `${WEBPAGETEST}, "56K Dial-Up"`,
    fields: line(120, "49kbps", "30kbps"),
  },
  "2g": {
    description: "mobile 2G: 280/256 kbps, 800 ms round trip",
    source: `${WEBPAGETEST}, "Mobile 2G"`,
    fields: line(800, "280kbps", "256kbps"),
  },
  gprs: {
    description: "GPRS: 50/20 kbps, 500 ms round trip",
    source: `${FIREFOX}, "GPRS"`,
    fields: line(500, "50kbps", "20kbps"),
  },
  edge: {
    description: "EDGE: 240/200 kbps, 840 ms round trip",
    source: `${WEBPAGETEST}, "Mobile Edge"`,
    fields: line(840, "240kbps", "200kbps"),
  },
  "3g_slow": {
    description: "slow 3G: 780/330 kbps, 200 ms round trip",
    source: `${WEBPAGETEST}, "Mobile 3G - Slow"`,
    fields: line(200, "780kbps", "330kbps"),
  },
  "3g": {
    description: "3G: 1.6 Mbps/768 kbps, 300 ms round trip",
    source: `${WEBPAGETEST}, "Mobile 3G"`,
    fields: line(300, "1.6mbps", "768kbps"),
  },
  "4g_slow": {
    description: "slow 4G, about the 85th percentile of mobile: 1.6 Mbps/750 kbps, 150 ms round trip",
    source: 'Lighthouse, docs/throttling.md, "Slow 4G"',
    fields: line(150, "1.6mbps", "750kbps"),
  },
  "4g": {
    description: "4G: 9/9 Mbps, 170 ms round trip",
    source: 'WebPageTest, profile "4G"',
    fields: line(170, "9mbps", "9mbps"),
  },
  lte: {
    description: "LTE: 12/12 Mbps, 70 ms round trip",
    source: `${WEBPAGETEST}, "Mobile LTE"`,
    fields: line(70, "12mbps", "12mbps"),
  },
  dsl: {
    description: "DSL: 1.5 Mbps/384 kbps, 50 ms round trip",
    source: `${WEBPAGETEST}, "DSL"`,
    fields: line(50, "1.5mbps", "384kbps"),
  },
  cable: {
    description: "cable: 5/1 Mbps, 28 ms round trip",
    source: `${WEBPAGETEST}, "Cable"`,
    fields: line(28, "5mbps", "1mbps"),
  },
  fibre: {
    description: "fibre: 20/5 Mbps, 4 ms round trip",
    source: `${WEBPAGETEST}, "FIOS"`,
    fields: line(4, "20mbps", "5mbps"),
  },
  wifi: {
    description: "Wi-Fi: 30/15 Mbps, 2 ms round trip",
    source: `${FIREFOX}, "Wi-Fi"`,
    fields: line(2, "30mbps", "15mbps"),
  },
  wifi_lossy: {
    description: "Wi-Fi at the edge of its reach: 2 % of packets lost, in bursts",
    source: `rates: ${FIREFOX}, "Wi-Fi"; bursts: the model of Gilbert (1960) and Elliott (1963), its figures ${OWN}`,
    fields: {
      ...line(2, "30mbps", "15mbps"),
      jitter: "5ms",
      jitter_distribution: "pareto",
      correlated_loss: { p_good_to_bad: "1%", p_bad_to_good: "24%", loss_good: "0%", loss_bad: "50%" },
    },
  },
  satellite_geo: {
    description: "a geostationary satellite: 558 ms round trip from the edge of its view",
    source: `latency: RFC 2488, section 2; rates and loss: ${OWN}`,
    fields: { ...line(558, "25mbps", "3mbps"), jitter: "10ms", packet_loss: "0.1%" },
  },
  satellite_leo: {
    description: "satellites in low orbit: 33 ms round trip, the 99th percentile near 65 ms",
    source: `latency: SpaceX, Improving Starlink's Latency (March 2024), median at peak hours; the rest: ${OWN}`,
    fields: { ...line(33, "100mbps", "15mbps"), jitter: "4ms", jitter_distribution: "pareto", packet_loss: "0.5%" },
  },
  cross_region: {
    description: "two cloud regions over an ocean, Virginia and Ireland: 80 ms round trip",
    source: "pings between AWS regions, published 2017: 80.5 ms on average",
    fields: { latency: "40ms", jitter: "1ms" },
  },
  intercontinental: {
    description: "half around the world, Ireland and Sydney: 310 ms round trip",
    source: `pings between AWS regions, published 2017: 309.6 ms on average; loss: ${OWN}`,
    fields: { latency: "155ms", jitter: "3ms", packet_loss: "0.1%" },
  },
  very_bad_network: {
    description: "1 Mbps, half a second each way, one packet in ten lost",
    source: `${APPLE}, "Very Bad Network"`,
    fields: { latency: "500ms", packet_loss: "10%", rate: "1mbps" },
  },
  packet_loss_burst: {
    description: "few losses, but five packets in a row",
    source: OWN,
    fields: { packet_loss: "0.5%", burst_loss: 5 },
  },
  bufferbloat: {
    description: "a full queue in the modem: an upload of 1 Mbps behind half a second of other people's packets",
    source: `the effect: Gettys and Nichols, Bufferbloat: Dark Buffers in the Internet (2011); figures: ${OWN}`,
    fields: { uplink: { latency: "500ms", jitter: "250ms", rate: "1mbps" }, downlink: { latency: "20ms" } },
  },
  brownout: {
    description: "a service that still answers, but slowly and not always",
    source: OWN,
    fields: {
      latency: "400ms",
      jitter: "200ms",
      jitter_distribution: "pareto",
      packet_loss: "3%",
      connection_error: { kind: "refused", prob: "5%" },
    },
  },
  flapping: {
    description: "a link that is gone for 5 s of every 20",
    source: OWN,
    fields: { packet_loss: "100%", schedule: { kind: "flapping", on: "5s", off: "15s" } },
  },
  black_hole: {
    description: "everything sent is lost, and nobody says so: a firewall that drops",
    source: OWN,
    fields: { packet_loss: "100%" },
  },
  slow_dns: {
    description: "every name lookup takes 3 s longer",
    source: `${APPLE}, "High Latency DNS"`,
    fields: { dns: { delay: "3s" } },
  },
  flaky_dns: {
    description: "name lookups are slow, and one in ten finds no such name",
    source: OWN,
    fields: { dns: { delay: "200ms", nxdomain: "10%" } },
  },
  dns_down: {
    description: "no name server answers: lookups fail after 10 s",
    source: "resolv.conf(5): a timeout of 5 s, two attempts",
    fields: { dns: { timeout: "10s" } },
  },
  no_such_name: {
    description: "no name exists",
    source: OWN,
    fields: { dns: { nxdomain: "100%" } },
  },
  refused: {
    description: "nothing listens: every connect is refused",
    source: "RFC 9293, section 3.5.2: a SYN for a closed port is answered by a reset",
    fields: { connection_error: { kind: "refused" } },
  },
  unreachable: {
    description: "no route: every connect fails as unreachable",
    source: "RFC 1122, section 3.2.2.1: Destination Unreachable",
    fields: { connection_error: { kind: "unreachable" } },
  },
  resets: {
    description: "connections that break: one unit in a hundred meets a reset",
    source: OWN,
    fields: { connection_error: { kind: "reset", prob: "1%" } },
  },
  half_open: {
    description: "connections that work for 32 kB, and then break",
    source: OWN,
    fields: { half_open: { after: "32kb" } },
  },
};

/** A preset as a policy. Throws a PolicyError for a name that there is not. */
export function loadPreset(name: string): Policy {
  const preset = Object.hasOwn(PRESETS, name) ? PRESETS[name] : undefined;
  if (preset === undefined) {
    throw new PolicyError("", `no such preset; the nearest is ${nearest(name, Object.keys(PRESETS))}`, name);
  }
  return parsePolicy(preset.fields);
}
