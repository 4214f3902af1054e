/**
 * What earlier daemons left and no record owns. Everything here is recognised by a place or a name that only banger gives; a disk is never
 * removed, for it may be all that is left of somebody's work.
 */
import { randomInt } from "node:crypto";
import { mkdir, readdir, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { abortable, silentProgress, withDeadline } from "../../contract/progress.ts";
import { callGuest } from "../../guest/call.ts";
import { connectGuest } from "../../guest/connection.ts";
import { exists, removeHalfWritten } from "../../host/files.ts";
import { daemonSocket, roots, vmFiles, vmSockets, vmSocketsFolder, vmsFolder, whoseSocket } from "../../host/paths.ts";
import type { Driver, MachineIdentity } from "../../vmm/driver.ts";
import type { Log } from "../log.ts";

/** How long the guest of a VM without a record may take to sync and shut down, in ms. */
const RESCUE_LIMIT = 30_000;
const ID = /^[0-9a-f]{32}$/;

export type OrphanParts = {
  /** Ids of the VMs that have a record. */
  known: ReadonlySet<string>;
  /** Pids of the VMMs that were taken up. */
  owned: ReadonlySet<number>;
  driver: Driver;
  log: Log;
};

/**
 * Ends VMMs that no record owns, and removes sockets and folders of VMs that are gone.
 * @returns when all is found; `rescued` resolves when the last guest without a record has shut down
 */
export const removeOrphans = async (parts: OrphanParts): Promise<{ rescued: Promise<void> }> => {
  const { known, owned, driver, log } = parts;
  const strays = (await driver.running(vmsFolder())).filter(({ identity }) => !owned.has(identity.pid));
  const rescues: Promise<void>[] = [];
  const busy = new Set<string>();
  for (const { identity, disk } of strays) {
    const id = basename(dirname(disk));
    log.warn("a machine that no record owns is ended", { pid: identity.pid, disk });
    // With a record it was only starting when its daemon died, and one that stood ready was nobody's: there is nothing to lose.
    if (known.has(id) || (await exists(vmFiles(id).ready))) {
      await endNow(driver, identity, id);
      continue;
    }
    busy.add(id);
    rescues.push(shutDownOrphan(driver, identity, id, log));
  }
  await removeRuntime(known, busy);
  for (const folder of await removeFolders(known, busy))
    log.warn("a disk without a record is left where it is", { folder });
  return { rescued: Promise.all(rescues).then(() => undefined) };
};

const endNow = async (driver: Driver, identity: MachineIdentity, id: string): Promise<void> => {
  const machine = await driver.adopt(identity, vmSockets(id));
  await machine?.kill();
};

/** Its record was lost: what its guest has not written to its disk yet need not be lost too. */
const shutDownOrphan = async (driver: Driver, identity: MachineIdentity, id: string, log: Log): Promise<void> => {
  try {
    const machine = await driver.adopt(identity, vmSockets(id));
    if (!machine) return;
    using limited = withDeadline(
      silentProgress(),
      RESCUE_LIMIT,
      () => new BangerError("GUEST_AGENT_LOST", "its guest did not shut down in time"),
    );
    try {
      const channel = await machine.openAgentChannel();
      const guest = await connectGuest({ channel, epoch: randomInt(1, 65536), onEvent: () => undefined }, limited);
      await callGuest(guest, { op: "shutdown", mode: "reboot" }, limited);
      await abortable(machine.ended, limited.signal);
    } catch (error) {
      log.warn("a guest without a record did not shut down", { id, error });
    }
    await machine.kill();
    await rm(vmSockets(id).folder, { recursive: true, force: true });
  } catch (error) {
    log.error("a machine without a record was not ended", { id, error });
  }
};

/** Sockets of VMs that do not run, and those that a daemon was making when it died. */
const removeRuntime = async (known: ReadonlySet<string>, busy: ReadonlySet<string>): Promise<void> => {
  await ensureFolder(vmSocketsFolder());
  for (const name of await namesIn(vmSocketsFolder())) {
    if (ID.test(name) && !known.has(name) && !busy.has(name))
      await rm(join(vmSocketsFolder(), name), { recursive: true, force: true });
  }
  const names = [daemonSocket(), whoseSocket()].map((path) => basename(path).replaceAll(".", "\\."));
  const half = new RegExp(`^(?:${names.join("|")})\\.[0-9a-f]{4}$`);
  for (const name of await namesIn(roots().runtime))
    if (half.test(name)) await rm(join(roots().runtime, name), { force: true });
};

/** Makes a folder of ours; a file that has taken its place goes. */
const ensureFolder = async (path: string): Promise<void> => {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    if (errnoOf(error) !== "EEXIST") throw error;
    await rm(path);
    await mkdir(path, { mode: 0o700 });
  }
};

/**
 * Removes folders of VMs that have no record and no disk (a start was cut off in a way that cost the record), and what an earlier daemon was writing in those
 * of others.
 * @returns folders that were kept
 */
const removeFolders = async (known: ReadonlySet<string>, busy: ReadonlySet<string>): Promise<string[]> => {
  const kept: string[] = [];
  for (const name of await namesIn(vmsFolder())) {
    if (!ID.test(name)) continue;
    const { folder, disk, ready } = vmFiles(name);
    if (known.has(name)) await removeHalfWritten(folder);
    else if (busy.has(name)) continue;
    else if ((await exists(disk)) && !(await exists(ready))) kept.push(folder);
    else await rm(folder, { recursive: true, force: true });
  }
  return kept;
};

const namesIn = async (folder: string): Promise<string[]> => {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return [];
    throw error;
  }
};
