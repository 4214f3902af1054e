/** `NAME.vm`: the port of banger's DNS server and the resolver's way to it. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../../contract/errors.ts";
import { advise, asRoot, type Check, pass, warn } from "./check.ts";

/** Where the DNS server is to listen, on 127.0.0.1. */
export const DNS_PORT = 42069;

/** Whether a program listens there; asked of the kernel, so that nothing is bound for a moment. */
const udpPortTaken = async (port: number): Promise<boolean> => {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  const tables = await Promise.all(
    ["/proc/net/udp", "/proc/net/udp6"].map((path) => readFile(path, "utf8").catch(() => "")),
  );
  return tables.some((text) => new RegExp(`^\\s*\\d+: [0-9A-F]+:${hex} `, "m").test(text));
};

const routeFolders = ["/etc/systemd/resolved.conf.d", "/etc/NetworkManager/dnsmasq.d", "/etc/dnsmasq.d"];

/** Files of the resolver's settings that lead to the port. */
const routes = async (): Promise<string[]> => {
  const found: string[] = [];
  for (const folder of routeFolders) {
    try {
      for (const name of await readdir(folder)) {
        const path = join(folder, name);
        if ((await readFile(path, "utf8").catch(() => "")).includes(String(DNS_PORT))) found.push(path);
      }
    } catch (error) {
      if (!["ENOENT", "EACCES", "ENOTDIR"].includes(errnoOf(error) ?? "")) throw error;
    }
  }
  return found;
};

export const nameChecks: readonly Check[] = [
  {
    name: "names",
    look: async () => {
      const absent = "this banger has no DNS server yet: NAME.vm is known to ssh alone";
      const [stale] = await routes();
      if (stale !== undefined)
        return warn(
          `${absent}, but ${stale} leads to its port ${DNS_PORT}: names below .vm time out`,
          asRoot("rm", stale),
        );
      if (await udpPortTaken(DNS_PORT))
        return advise(
          warn(`${absent}; port ${DNS_PORT}, which it is to have, is taken by another program`),
          `see which: ss -ulpn 'sport = :${DNS_PORT}'`,
        );
      return pass(`${absent}; its port ${DNS_PORT} is free, and no resolver route is needed`);
    },
  },
];
