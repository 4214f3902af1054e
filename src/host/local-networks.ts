/** What is near this machine: the networks that it is on, and every address of its own. */
import { networkInterfaces } from "node:os";
import { readFileIfThere } from "./files.ts";

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

/** As `ADDRESS/BITS`, IPv4 only; the address need not be the network's first. */
export const localNetworks = async (): Promise<string[]> => {
  const attached = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .flatMap(({ family, cidr }) => (family === "IPv4" && cidr ? [cidr] : []));
  return [...attached, ...localRoutes((await readFileIfThere("/proc/net/fib_trie")) ?? "")];
};
