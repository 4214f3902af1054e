/** Rules of a VM's network, as they are written: `TARGET[:PORTS][/tcp|udp]`. */
import { BangerError } from "./errors.ts";
import { quoted } from "./names.ts";
import type { NetRule } from "./network.ts";

const refuse = (text: string): never => {
  throw new BangerError("USAGE", `${quoted(text)} is no network rule`, {
    hint: "write any, an IPv4 address or a network, then a port or a range of ports: 192.168.1.0/24, 192.168.1.5:22, any:8000-8080/tcp",
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

/** @throws USAGE */
export const parseNetRule = (action: NetRule["action"], text: string): NetRule => {
  const match =
    /^(?:any|(\d{1,3}(?:\.\d{1,3}){3})(?:\/(\d{1,2}))?)(?::(\d{1,5})(?:-(\d{1,5}))?)?(?:\/(tcp|udp))?$/.exec(text);
  if (!match) return refuse(text);
  const [, address = "0.0.0.0", bits = text.startsWith("any") ? "0" : "32", first, last = first, proto] = match;
  const to = networkOf(address, Number(bits)) ?? refuse(text);
  if (first === undefined) return { action, to, proto: proto === "tcp" || proto === "udp" ? proto : "any" };
  const ports: [number, number] = [Number(first), Number(last)];
  if (ports[0] < 1 || ports[1] > 65535 || ports[0] > ports[1]) refuse(text);
  return { action, to, proto: proto === "udp" ? "udp" : proto === "tcp" ? "tcp" : "any", ports };
};

/** As it is written on a command line. */
export const formatNetRule = ({ to, proto, ports }: NetRule): string => {
  const [address = "", bits = ""] = to.split("/");
  const target = bits === "0" ? "any" : bits === "32" ? address : to;
  const range = ports === undefined ? "" : ports[0] === ports[1] ? `:${ports[0]}` : `:${ports[0]}-${ports[1]}`;
  return `${target}${range}${proto === "any" ? "" : `/${proto}`}`;
};

export const sameNetRule = (one: NetRule, other: NetRule): boolean =>
  one.action === other.action && formatNetRule(one) === formatNetRule(other);
