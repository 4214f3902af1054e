/**
 * The rules of a VM's network for connections that the daemon makes in its name: what the filter before its network card decides about packets
 * (agent/src/host/policy.rs) is decided here in the same order about a host's name and one of its addresses.
 */
import type { NetRule } from "../../contract/network.ts";
import { type NetworkRules, ruleLine } from "./rules-file.ts";
import { addressOf, holds, isNear, isNever, mayHold, networkOf } from "./whose-address.ts";

export type Destination = {
  /** As the guest named it: a name, or the address itself. */
  host: string;
  address: string;
  /** TCP. */
  port: number;
};

/** Of a team's VMs: reached by the network card, not from here. */
const TEAM = networkOf("10.0.3.0/24");

const concerns = ({ proto, ports }: NetRule, port: number): boolean =>
  proto !== "udp" && (ports === undefined || (port >= ports[0] && port <= ports[1]));

const fits = (pattern: string, host: string): boolean =>
  pattern.startsWith("*.") ? host.endsWith(pattern.slice(1)) : pattern === host;

/**
 * @param near networks that this machine is on, as `ADDRESS/BITS`
 * @returns the rule that refuses it, as the filter writes it down; undefined where it may be reached
 */
export const refusalOf = (
  { network, rules, team }: Pick<NetworkRules, "network" | "rules" | "team">,
  near: readonly string[],
  { host, address, port }: Destination,
): string | undefined => {
  const to = addressOf(address);
  if (network === "none") return "no network card";
  if (to === undefined || isNever(to)) return "never";
  if (team.length > 0 && TEAM && mayHold(TEAM, to)) return "team";
  const local = near.flatMap((text) => networkOf(text) ?? []);
  const toNear = isNear(to, local);
  const decides = (rule: NetRule): boolean => {
    if (!concerns(rule, port)) return false;
    const range = networkOf(rule.to);
    // What is denied is denied by any way that leads there.
    if (range) return rule.action === "allow" ? holds(range, to) : mayHold(range, to);
    // Whoever owns a name can let it lead anywhere: not to what is near.
    return !(rule.action === "allow" && toNear) && fits(rule.to, host);
  };
  const rule = rules.find(decides);
  if (rule) return rule.action === "deny" ? ruleLine(rule) : undefined;
  if (toNear) return "private";
  return network === "policy" ? "default deny" : undefined;
};
