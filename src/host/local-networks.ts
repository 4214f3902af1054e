/** What is near this machine: the networks that it is on, and every address of its own; and whether it is on the Internet at all. */
import { networkInterfaces } from "node:os";
import { readFileIfThere } from "./files.ts";

const ROUTES4 = "/proc/net/route";
const ROUTES6 = "/proc/net/ipv6_route";

/** Addresses that lead to this machine itself, by the kernel's table of routes: those of interfaces that are down, or of loopback's, too. */
export const localRoutes = (fibTrie: string): string[] => {
  const found: string[] = [];
  let address = "";
  for (const line of fibTrie.split("\n")) {
    address = /\|-- ([\d.]+)$/.exec(line)?.[1] ?? address;
    const bits = /^\s*\/(\d+) host LOCAL/.exec(line)?.[1];
    if (bits) found.push(`${address}/${bits}`);
  }
  return [...new Set(found)];
};

/** Flags of a route. */
const UP = 0x1;
const REJECT = 0x200;
const LOCAL = 0x8000_0000;

type Route6 = { to: string; bits: number; flags: number; device: string };

/** @param table of the kernel, ROUTES6: all numbers but the device are hexadecimal */
const routes6 = (table: string): Route6[] =>
  table.split("\n").flatMap((line) => {
    const [to = "", bits = "", , , , , , , flags = "", device = ""] = line.trim().split(/\s+/);
    const groups = to.match(/[0-9a-f]{4}/g);
    if (groups?.length !== 8) return [];
    return [{ to: groups.join(":"), bits: Number.parseInt(bits, 16), flags: Number.parseInt(flags, 16), device }];
  });

/** As `localRoutes`, of IPv6. */
export const localRoutes6 = (table: string): string[] => [
  ...new Set(routes6(table).flatMap(({ to, bits, flags }) => ((flags & LOCAL) !== 0 ? [`${to}/${bits}`] : []))),
];

/** Whether a table of routes of IPv6 has a way to everywhere. */
export const leadsOut6 = (table: string): boolean =>
  routes6(table).some(
    ({ to, bits, flags, device }) =>
      bits === 0 && /^[0:]+$/.test(to) && device !== "lo" && (flags & UP) !== 0 && (flags & REJECT) === 0,
  );

/** The same of IPv4. @param table ROUTES4 */
export const leadsOut4 = (table: string): boolean =>
  table.split("\n").some((line) => {
    const [, to, , flags = "", , , , mask] = line.trim().split(/\s+/);
    return to === "00000000" && mask === "00000000" && (Number.parseInt(flags, 16) & (UP | REJECT)) === UP;
  });

/** Whether this machine has a way out by IPv6 now. */
export const hasIpv6 = async (): Promise<boolean> => leadsOut6((await readFileIfThere(ROUTES6)) ?? "");

/** The same of IPv4. */
export const hasIpv4 = async (): Promise<boolean> => leadsOut4((await readFileIfThere(ROUTES4)) ?? "");

/** As `ADDRESS/BITS`; the address need not be the network's first. */
export const localNetworks = async (): Promise<string[]> => {
  const attached = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .flatMap(({ cidr }) => cidr ?? []);
  const [four, six] = await Promise.all([readFileIfThere("/proc/net/fib_trie"), readFileIfThere(ROUTES6)]);
  return [...attached, ...localRoutes(four ?? ""), ...localRoutes6(six ?? "")];
};
