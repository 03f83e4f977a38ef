/**
 * Target rules: which flows a policy is for. A rule is text (`tcp://10.0.0.0/8`), an object of fields, or, on the
 * command line, `key=value` pairs; all become the fields of the contract's Target.
 */

import { z } from "zod";
import type { Network } from "./addresses.js";
import { NAME_KINDS, PROTOCOLS } from "./contract.js";
import { clip, nearest, PolicyError, quote } from "./errors.js";
import { block, choice, count, field, fieldAbout, inputJson } from "./fields.js";
import { problemsOf } from "./problems.js";
import { parseCidr, parseHostname, parseOneAddress, parseRule, RULE_EXAMPLE, refuse, type Selector } from "./rule.js";
import { MAX_PORT_RANGES, type PortRange, parsePorts } from "./units.js";

/** Rules that one policy can hold. */
export const MAX_TARGETS = 16;

/** A rule in the contract's form: the fields of Target (native/contract/target.h), by name. */
export interface TargetFields {
  address: Uint8Array;
  prefix_length: number;
  protocol: number;
  name_kind: number;
  port_ranges: number;
  priority: number;
  port_low: number[];
  port_high: number[];
  name: string;
}

/** A rule, and what the observability rules ask of it. */
export interface ParsedTarget {
  readonly fields: TargetFields;
  /** It names something a connection shows: an address, a host name, an SNI name or a unix socket. */
  readonly observable: boolean;
  /** It is a host name and nothing else: the only rule that a name lookup, without port or protocol, can match. */
  readonly hostnameOnly: boolean;
}

/** A text that starts so. */
const RULE_JSON = { type: "string", pattern: "^(any|tcp|udp|unix)://" };
const NAME_JSON = { type: "string", pattern: "^[A-Za-z0-9_*]([A-Za-z0-9_*.-]*[A-Za-z0-9_*.])?$" };
const PORT = "\\s*\\d{1,5}(-\\d{1,5})?\\s*";
const PORTS_JSON = {
  type: ["string", "integer"],
  pattern: `^${PORT}(,${PORT}){0,${MAX_PORT_RANGES - 1}}$`,
  minimum: 1,
  maximum: 65_535,
};

const name = (help: string, example: string, rule: string) =>
  field<string, string>(parseHostname, { help, example, rule, valueName: "name", json: NAME_JSON });

/** The fields of a rule, every one optional. */
export const ruleFields = block(
  {
    target: field<string, Selector>(parseRule, {
      help: "a rule as text",
      example: RULE_EXAMPLE,
      valueName: "rule",
      json: RULE_JSON,
    }).optional(),
    host: field<string, Network>(parseOneAddress, {
      help: "one address",
      example: "10.0.0.1",
      valueName: "address",
      json: { type: "string", pattern: "^[0-9a-fA-F:.]+$" },
      rule: "not with cidr, hostname or sni",
    }).optional(),
    cidr: field<string, Network>(parseCidr, {
      help: "a network",
      example: "10.0.0.0/8",
      valueName: "network",
      json: { type: "string", pattern: "^[0-9a-fA-F:.]+/\\d{1,3}$" },
      rule: "not with host, hostname or sni",
    }).optional(),
    hostname: name("the name the program looked up", "api.internal", "* stands for any run; not with sni").optional(),
    sni: name("the name in the TLS greeting", "*.example.com", "* stands for any run; not with hostname").optional(),
    port: field<string | number, PortRange[]>(parsePorts, {
      help: "a port, a range or a list",
      example: "80,443",
      valueName: "ports",
      json: PORTS_JSON,
      rule: `at most ${MAX_PORT_RANGES} ports and ranges`,
    }).optional(),
    protocol: choice(["any", "tcp", "udp"], {
      help: "the protocol",
      example: "tcp",
      rule: "must not contradict the target's",
    }).optional(),
    priority: count({ help: "higher is asked first", example: "5", min: 0, rule: "ties to the first" }).optional(),
  },
  { help: "a rule as an object", example: `{target: ${RULE_EXAMPLE}} or the text ${RULE_EXAMPLE}` },
);

/** A rule as an object. */
export type TargetInput = z.input<typeof ruleFields>;
type Rule = z.output<typeof ruleFields>;

/** What is wrong between the fields of a rule, or nothing. */
function contradiction({ target, ...rule }: Rule): string | undefined {
  const named = rule.hostname !== undefined || rule.sni !== undefined;
  const addressed = rule.host !== undefined || rule.cidr !== undefined;
  if (rule.hostname !== undefined && rule.sni !== undefined) return "takes hostname or sni, not both";
  if (rule.host !== undefined && rule.cidr !== undefined) return "takes host or cidr, not both";
  if (named && addressed) return "takes an address (host, cidr) or a name (hostname, sni), not both";
  const selects = named || addressed || rule.port !== undefined || (rule.protocol ?? "any") !== "any";
  const targetSelects = target !== undefined && (target.protocol !== "any" || Object.keys(target).length > 1);
  if (!selects && !targetSelects) return `names no flows; give it a target, such as ${RULE_EXAMPLE}`;
  if (target === undefined) return undefined;
  const unix = target.protocol === "unix";
  if (unix && (named || addressed || rule.port !== undefined))
    return "takes a unix:// target or network fields, not both";
  if ((target.network ?? target.hostname) !== undefined && (named || addressed)) {
    return "takes the place from target or from host, cidr, hostname or sni, not both";
  }
  if (target.ports !== undefined && rule.port !== undefined) return "takes ports from target or from port, not both";
  if (rule.protocol !== undefined && target.protocol !== "any" && target.protocol !== rule.protocol) {
    return `has a target of ${target.protocol}:// that contradicts protocol ${rule.protocol}; leave one out`;
  }
  return undefined;
}

function compileRule({ target, ...rule }: Rule): ParsedTarget {
  const network = rule.host ?? rule.cidr ?? target?.network;
  const hostname = rule.hostname ?? target?.hostname;
  const fromRule = rule.protocol === "any" ? undefined : rule.protocol;
  const protocol = fromRule ?? target?.protocol ?? "any";
  const ports = rule.port ?? target?.ports ?? [];
  const nameKind =
    hostname !== undefined ? "hostname" : rule.sni !== undefined ? "sni" : target?.path !== undefined ? "path" : "none";
  const pad = (bounds: number[]): number[] => [...bounds, ...Array<number>(MAX_PORT_RANGES - bounds.length).fill(0)];
  return {
    fields: {
      address: network?.address ?? new Uint8Array(16),
      prefix_length: network?.prefixLength ?? 0,
      protocol: PROTOCOLS[protocol],
      name_kind: NAME_KINDS[nameKind],
      port_ranges: ports.length,
      priority: rule.priority ?? 0,
      port_low: pad(ports.map(({ low }) => low)),
      port_high: pad(ports.map(({ high }) => high)),
      name: hostname ?? rule.sni ?? target?.path ?? "",
    },
    observable: network !== undefined || nameKind !== "none" || protocol === "unix",
    hostnameOnly: nameKind === "hostname" && protocol === "any" && ports.length === 0,
  };
}

const target = z
  .custom<string | TargetInput>()
  .transform((written) => (typeof written === "string" ? { target: written } : written))
  .pipe(ruleFields)
  .transform((rule, context) => {
    const problem = contradiction(rule);
    if (problem === undefined) return compileRule(rule);
    context.addIssue({ code: "custom", message: problem });
    return z.NEVER;
  })
  .register(fieldAbout, {
    help: "a rule: text, or an object of fields",
    example: RULE_EXAMPLE,
    valueName: "rule",
    json: { anyOf: [RULE_JSON, inputJson(ruleFields)] },
  });

/** The rules of a policy, highest priority first, ties in the order written. */
export const targets = z
  .array(target, { error: `must be a list of rules, such as ["${RULE_EXAMPLE}"]` })
  .min(1, { error: `must have at least one rule, such as ["${RULE_EXAMPLE}"]` })
  .max(MAX_TARGETS, { error: `takes at most ${MAX_TARGETS} rules` })
  .transform((rules) => rules.toSorted((a, b) => b.fields.priority - a.fields.priority))
  .register(fieldAbout, {
    help: "only these flows",
    example: `[${RULE_EXAMPLE}]`,
    valueName: "list",
    json: {},
    rule: `1 to ${MAX_TARGETS} rules`,
  });

/** One rule by itself. Throws a PolicyError. */
export function parseTarget(written: string | TargetInput): ParsedTarget {
  const result = target.safeParse(written);
  if (result.success) return result.data;
  throw new PolicyError("", problemsOf(result.error, written)[0]?.problem ?? "not a target", written);
}

/** The command line's form: a rule's text as it is, or `hostname=api.internal,port=80-90;443,priority=5`. */
export function targetFromFlag(text: string): string | TargetInput {
  if (/^[a-z]*:\/\//.test(text)) return text;
  const pairs = text.split(",").map((pair): [string, string] => {
    const equals = pair.indexOf("=");
    if (equals < 1)
      return refuse(
        `a target is a rule or key=value pairs, such as ${RULE_EXAMPLE} or hostname=api.internal,port=443`,
        text,
      );
    return [pair.slice(0, equals).trim(), pair.slice(equals + 1).trim()];
  });
  const known = Object.keys(ruleFields.shape);
  const seen = new Set<string>();
  for (const [key] of pairs) {
    if (seen.has(key)) refuse(`gives ${clip(key)} twice; a list of ports is port=80;443`, text);
    if (!known.includes(key)) refuse(`has no key ${quote(key)}; the nearest is ${nearest(key, known)}`, text);
    seen.add(key);
  }
  // Within a rule the comma parts its keys, so a list of ports uses semicolons here.
  return Object.fromEntries(pairs.map(([key, value]) => [key, key === "port" ? value.replaceAll(";", ",") : value]));
}
