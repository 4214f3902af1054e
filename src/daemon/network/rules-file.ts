/** The file of a VM's network rules, which the filter before its network reads, and reads again when it is replaced (agent/src/host/policy.rs). */
import type { NetRule } from "../../contract/network.ts";
import { parseNetRule } from "../../contract/net-rules.ts";
import { readFileIfThere, writeFileWhole } from "../../host/files.ts";
import { hasIpv6, localNetworks } from "../../host/local-networks.ts";
import type { VmRow } from "../store/vms.ts";

/** As the filter reads it. */
export const ruleLine = ({ action, to, proto, ports }: NetRule): string =>
  `${action} ${to} ${proto} ${ports ? `${ports[0]}-${ports[1]}` : "*"}`;

/** What a VM's filter is told. */
export type NetworkRules = Pick<VmRow, "network" | "rules"> & {
  /** Lines of its team (`team.ts`). */
  team: readonly string[];
  /** The line about whom to ask whose a packet was (`whose.ts`). */
  whose?: string | undefined;
};

/** The first line. A filter of an earlier banger, which runs on with its VM, understands other lines, and would leave those it had before. */
const FORMAT = "format 2";

/** Whether the filter of a VM that runs understands what `writeRules` writes. @param path of the file that it was started with */
export const heedsRules = async (path: string): Promise<boolean> =>
  (await readFileIfThere(path))?.startsWith(`${FORMAT}\n`) === true;

/** Whether the network of a VM is not what it should be where nothing heeds rules. */
export const needsFilter = ({ network, rules, team }: Pick<VmRow, "network" | "rules"> & { team?: unknown }): boolean =>
  network === "policy" || network === "learn" || rules.length > 0 || team !== undefined;

/** @param near networks as `ADDRESS/BITS` @param six whether IPv6 leads anywhere */
export const rulesText = (
  { network, rules, team, whose }: NetworkRules,
  { near, six }: { near: readonly string[]; six: boolean },
): string =>
  [
    FORMAT,
    ...rules.map(ruleLine),
    ...[...new Set(near.map((each) => parseNetRule("deny", each).to))].map((to) => `local ${to}`),
    `default ${network === "policy" ? "deny" : "allow"}`,
    ...(six ? ["ipv6"] : []),
    ...(network === "learn" ? ["learn"] : []),
    ...(whose === undefined ? [] : [whose]),
    ...team,
  ].join("\n");

/** @param rules as they are now. Asked again after each writing: of two who write at once, the later one leaves what counts. */
export const writeRules = async (path: string, rules: () => NetworkRules): Promise<void> => {
  const [near, six] = await Promise.all([localNetworks(), hasIpv6()]);
  const text = () => rulesText(rules(), { near, six });
  for (let written: string | undefined; written !== text(); ) {
    written = text();
    // Written anew at each start: it need not outlive a crash of the host.
    await writeFileWhole(path, written);
  }
};
