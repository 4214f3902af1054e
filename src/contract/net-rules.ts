/** Rules of a VM's network, as they are written: `TARGET[:PORTS][/tcp|udp]`. */
import { BangerError } from "./errors.ts";
import { quoted } from "./names.ts";
import type { NetRule } from "./network.ts";

const refuse = (text: string): never => {
  throw new BangerError("USAGE", `${quoted(text)} is no network rule`, {
    hint: "write any, a name, an address or a network, then a port or a range of ports: example.org:443, *.example.org, 192.168.1.0/24, [2001:db8::1]:443, any:8000-8080/tcp",
  });
};

/** `192.168.1.7/24` names the network 192.168.1.0/24. */
const networkOf = (address: string, bits: number): string | undefined => {
  const octets = address.split(".").map(Number);
  if (octets.length !== 4 || octets.some((octet) => octet > 255) || bits > 32) return undefined;
  const value = octets.reduce((sum, octet) => sum * 256 + octet, 0);
  const base = value - (value % 2 ** (32 - bits));
  return `${[24, 16, 8, 0].map((shift) => Math.floor(base / 2 ** shift) % 256).join(".")}/${bits}`;
};

/** The eight numbers of an IPv6 address; undefined for what is none. */
export const groupsOf = (address: string): number[] | undefined => {
  if (!/^[\da-f:.]+$/i.test(address) || !address.includes(":")) return undefined;
  const canonical = URL.parse(`http://[${address}]`)?.hostname.slice(1, -1);
  if (canonical === undefined) return undefined;
  const [before = [], after] = canonical.split("::").map((half) => half.split(":").filter(Boolean));
  const zeros = after === undefined ? [] : Array<string>(8 - before.length - after.length).fill("0");
  return [...before, ...zeros, ...(after ?? [])].map((group) => Number.parseInt(group, 16));
};

const networkOf6 = (address: string, bits: number): string | undefined => {
  const groups = groupsOf(address);
  if (groups === undefined || bits > 128) return undefined;
  const kept = groups.map((group, index) => {
    const below = Math.min(16, Math.max(0, 16 * (index + 1) - bits));
    return (group - (group % 2 ** below)).toString(16);
  });
  return `${URL.parse(`http://[${kept.join(":")}]`)?.hostname.slice(1, -1)}/${bits}`;
};

const NAME = /^(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** All addresses, of IPv6 too. */
const ANY = "0.0.0.0/0";

/** What a rule is about, as the filter has it; undefined for what none can be about. */
export const targetOf = (text: string): string | undefined => {
  if (text === "any") return ANY;
  const [, address = "", bits = "32"] = /^(\d{1,3}(?:\.\d{1,3}){3})(?:\/(\d{1,2}))?$/.exec(text) ?? [];
  if (address !== "") return networkOf(address, Number(bits));
  if (text.includes(":")) {
    const [, six = "", length = "128"] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
    return networkOf6(six, Number(length));
  }
  const name = text.toLowerCase();
  return NAME.test(name) && name.length <= 253 ? name : undefined;
};

/** @throws USAGE */
export const parseNetRule = (action: NetRule["action"], text: string): NetRule => {
  // An IPv6 address is in brackets, or has no ports.
  const [, within, bare, first, last = first, protocol] =
    /^(?:\[([\da-fA-F:.]+(?:\/\d+)?)\]|([^:\s]+?|[\da-fA-F.]*:[\da-fA-F:.]*:[\da-fA-F:.]*(?:\/\d+)?))(?::(\d{1,5})(?:-(\d{1,5}))?)?(?:\/(tcp|udp))?$/.exec(
      text,
    ) ?? [];
  if (within !== undefined && !within.includes(":")) refuse(text);
  const to = targetOf(within ?? bare ?? "") ?? refuse(text);
  const proto = protocol === "tcp" || protocol === "udp" ? protocol : "any";
  if (first === undefined) return { action, to, proto };
  const ports: [number, number] = [Number(first), Number(last)];
  if (ports[0] < 1 || ports[1] > 65535 || ports[0] > ports[1]) refuse(text);
  return { action, to, proto, ports };
};

/** As it is written on a command line. */
export const formatNetRule = ({ to, proto, ports }: NetRule): string => {
  const [address = "", bits] = to.split("/");
  const six = address.includes(":");
  const one = bits === (six ? "128" : "32");
  const written = to === ANY ? "any" : one ? address : to;
  const target = six && ports !== undefined ? `[${written}]` : written;
  const range = ports === undefined ? "" : ports[0] === ports[1] ? `:${ports[0]}` : `:${ports[0]}-${ports[1]}`;
  return `${target}${range}${proto === "any" ? "" : `/${proto}`}`;
};

export const sameNetRule = (one: NetRule, other: NetRule): boolean =>
  one.action === other.action && formatNetRule(one) === formatNetRule(other);
