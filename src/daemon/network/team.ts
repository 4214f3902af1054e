/** Teams: VMs that reach one another, through their filters (agent/src/host/team.rs). */
import { BangerError } from "../../contract/errors.ts";
import { vmSockets, whoseSocket } from "../../host/paths.ts";
import type { VmRow } from "../store/vms.ts";
import type { NetworkRules } from "./rules-file.ts";

type Member = Pick<VmRow, "id" | "name" | "mac" | "team">;

/** Addresses of a team, the same in each: 10.0.3.2 to 10.0.3.254. */
const FIRST = 2;
const LAST = 254;

/** @throws USAGE when the team has no room for another */
export const joinTeam = (name: string, rows: readonly Member[]): NonNullable<Member["team"]> => {
  const taken = new Set(rows.filter(({ team }) => team?.name === name).map(({ team }) => team?.address));
  for (let number = FIRST; number <= LAST; number++) {
    const address = `10.0.3.${number}`;
    if (!taken.has(address)) return { name, address };
  }
  throw new BangerError("USAGE", `team ${name} has ${LAST - FIRST + 1} VMs, and no room for more`, {
    hint: "delete one of them, or name another team",
  });
};

/** Lines for the filter: where it is, and where each of its team is, itself too. */
const linesOf = ({ id, mac, team }: Member, rows: readonly Member[]): string[] => {
  if (!team) return [];
  const peers = rows.flatMap((other) =>
    other.team?.name === team.name ? [`peer ${other.name} ${other.team.address} ${vmSockets(other.id).team}`] : [],
  );
  return [`team ${team.address} ${mac} ${vmSockets(id).team}`, ...peers];
};

/** @param rows all VMs, as they are now */
export const networkOf = (
  row: Member & Omit<NetworkRules, "team" | "whose">,
  rows: () => readonly Member[],
): NetworkRules => ({
  network: row.network,
  rules: row.rules,
  team: row.team ? linesOf(row, rows()) : [],
  whose: `whose ${row.id} ${whoseSocket()}`,
});
