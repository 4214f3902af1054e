/** Lines about a VM's network in the log that its filter writes (agent/src/host/gate.rs): each once, and not without end. */
import { appendFile } from "node:fs/promises";
import { vmFiles } from "../../host/paths.ts";
import type { Log } from "../log.ts";

/** A guest must not fill the host's disk. */
const LINES_MAX = 10_000;
const REMEMBERED = 1024;

/** Finds out which process of the guest wanted something: `NAME(PID)`, or nothing. */
export type Whose = () => Promise<string>;

export type Told = {
  /** `refused` or `passed`, protocol, address, and the name that was asked for. */
  what: string;
  /** That refused it. */
  rule?: string;
  whose?: Whose | undefined;
};

/** Has found out whose it was, where that is asked for, when it is done: whoever is refused may be gone at once. */
export type Tell = (told: Told) => Promise<void>;

/** @param owner `NAME(PID)`, or nothing */
export const toldLine = ({ what, rule }: Told, owner: string): string =>
  `${what}${owner === "" ? "" : ` from ${owner}`}${rule === undefined ? "" : ` by: ${rule}`}`;

/** @param id of the VM */
export const networkTold = (id: string, log: Log): Tell => {
  const told = new Set<string>();
  let lines = 0;
  let written: Promise<void> = Promise.resolve();
  return async (one) => {
    const key = toldLine(one, "");
    if (lines >= LINES_MAX || told.has(key)) return;
    if (told.size >= REMEMBERED) told.clear();
    told.add(key);
    lines++;
    const last = lines === LINES_MAX ? "refused more, or let through, which is not written down\n" : "";
    const line = toldLine(one, (await one.whose?.()) ?? "");
    written = written
      .then(() => appendFile(vmFiles(id).networkLog, `${line}\n${last}`, { mode: 0o600 }))
      // On a full disk a line is lost, not the network.
      .catch((error: unknown) => log.debug("network log not written", { id, error }));
  };
};
