/** Lines of the filter before a VM's network (agent/src/host/gate.rs). */
import type { NetRule } from "../../contract/network.ts";
import { formatNetRule, parseNetRule, targetOf } from "../../contract/net-rules.ts";

/** What happened to the first packet to a destination. */
export type Told = {
  verdict: "refused" | "passed";
  /** `tcp`, `udp`, `icmp`, `protocol` and its number; `http` of a request that the proxy of secrets has refused. */
  protocol: string;
  /** Of `http`: as the request names the host. */
  address: string;
  port?: number;
  /** By which the guest asked for the address. */
  name?: string;
  /** Whose it was, in the guest. */
  process?: { name: string; pid: number };
  /** That refused it. */
  rule?: string;
};

const REQUEST = /^refused http (?:\[([\da-f:.]+)\]|([^\s:]+)):(\d+)(?: from (\S+)\((\d+)\))? by: (.*)$/;
const LINE =
  /^(refused|passed) (tcp|udp|icmp|protocol \d+) (?:([\d.]+)|\[([\da-f:.]+)\]|([\da-f:.]+))(?::(\d+))?(?: ([\w.-]+))?(?: from (\S+)\((\d+)\))?(?: by: (.*))?$/;

/** @returns undefined for a line that is about something else */
export const toldIn = (line: string): Told | undefined => {
  const [, six, host, at, who, id, why] = REQUEST.exec(line) ?? [];
  const asked = six ?? host;
  if (asked !== undefined && why !== undefined)
    return {
      verdict: "refused",
      protocol: "http",
      address: asked,
      port: Number(at),
      ...(who === undefined ? {} : { process: { name: who, pid: Number(id) } }),
      rule: why,
    };
  const [, verdict, protocol = "", four, within, bare, port, name, process, pid, rule] = LINE.exec(line) ?? [];
  const address = four ?? within ?? bare;
  if ((verdict !== "refused" && verdict !== "passed") || address === undefined) return undefined;
  return {
    verdict,
    protocol,
    address,
    ...(port === undefined ? {} : { port: Number(port) }),
    ...(name === undefined ? {} : { name }),
    ...(process === undefined ? {} : { process: { name: process, pid: Number(pid) } }),
    ...(rule === undefined ? {} : { rule }),
  };
};

/** The rule that allows such a packet and nothing else; a ping has none. */
const ruleFor = ({ protocol, address, port, name }: Told): NetRule | undefined => {
  if ((protocol !== "tcp" && protocol !== "udp") || port === undefined) return undefined;
  const numeric = address.includes(":") ? `[${address}]` : address;
  const target = name !== undefined && targetOf(name) !== undefined ? name : numeric;
  return parseNetRule("allow", `${target}:${port}/${protocol}`);
};

/** Rules that allow what has passed, and no more, each once, in their order. */
export const learnedFrom = async (lines: AsyncIterable<string>): Promise<{ rules: NetRule[]; refused: Told[] }> => {
  const rules = new Map<string, NetRule>();
  const refused: Told[] = [];
  for await (const line of lines) {
    const told = toldIn(line);
    if (told?.verdict === "refused") refused.push(told);
    const rule = told?.verdict === "passed" ? ruleFor(told) : undefined;
    if (rule) rules.set(formatNetRule(rule), rule);
  }
  return { rules: [...rules.keys()].sort().flatMap((word) => rules.get(word) ?? []), refused };
};
