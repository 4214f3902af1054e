/** Lines about a VM's network in the log that its filter writes (agent/src/host/gate.rs): each once, and not without end. */
import { appendFile } from "node:fs/promises";
import { vmFiles } from "../../host/paths.ts";
import type { Log } from "../log.ts";

/** A guest must not fill the host's disk. */
const LINES_MAX = 10_000;
const REMEMBERED = 1024;

/**
 * @param id of the VM
 * @returns a function that writes a line, beginning with `refused` or `passed`
 */
export const networkTold = (id: string, log: Log): ((line: string) => void) => {
  const told = new Set<string>();
  let lines = 0;
  let written: Promise<void> = Promise.resolve();
  return (line) => {
    if (lines >= LINES_MAX || told.has(line)) return;
    if (told.size >= REMEMBERED) told.clear();
    told.add(line);
    lines++;
    const last = lines === LINES_MAX ? "refused more, or let through, which is not written down\n" : "";
    written = written
      .then(() => appendFile(vmFiles(id).networkLog, `${line}\n${last}`, { mode: 0o600 }))
      // On a full disk a line is lost, not the network.
      .catch((error: unknown) => log.debug("network log not written", { id, error }));
  };
};
