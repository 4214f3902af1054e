/** What the state database says, read without the daemon and without leaving a trace. */
import { DatabaseSync } from "node:sqlite";
import { pathToFileURL } from "node:url";
import { exists } from "../../host/files.ts";
import { databaseFile } from "../../host/paths.ts";

export type RecordedVm = { id: string; name: string; state: string; pid: number | undefined };

export type StateDatabase = {
  /** Number of the last migration. */
  format: number;
  /** What SQLite finds wrong with it; empty: nothing. */
  damage: string[];
  vms: RecordedVm[];
};

/** Longest wait for a daemon that writes, in ms. */
const BUSY_LIMIT = 2000;

/**
 * @returns undefined when there is none yet
 * @throws SQLite's error when it is no database
 */
export const readRecorded = async (path = databaseFile()): Promise<StateDatabase | undefined> => {
  if (!(await exists(path))) return undefined;
  // A reader of a database in WAL mode makes files of its own beside it, unless it is told that nobody writes.
  const isWritten = () => exists(`${path}-wal`);
  if (await isWritten()) return read(path, false);
  try {
    const found = read(path, true);
    if (found.damage.length === 0 || !(await isWritten())) return found;
  } catch (error) {
    if (!(await isWritten())) throw error;
  }
  // A daemon has begun to write meanwhile: what was read was no state of it.
  return read(path, false);
};

/** @param immutable nobody writes to it */
const read = (path: string, immutable: boolean): StateDatabase => {
  const url = pathToFileURL(path);
  if (immutable) url.searchParams.set("immutable", "1");
  const database = new DatabaseSync(url, { readOnly: true, timeout: BUSY_LIMIT });
  try {
    const damage = database
      .prepare("PRAGMA quick_check(5)")
      .all()
      .map((row) => String(Object.values(row)[0]))
      .filter((line) => line !== "ok");
    const format = Number(Object.values(database.prepare("PRAGMA user_version").get() ?? {})[0]);
    const rows = format > 0 ? database.prepare("SELECT id, name, state, pid FROM vms").all() : [];
    const vms = rows.map(({ id, name, state, pid }) => ({
      id: String(id),
      name: String(name),
      state: String(state),
      pid: typeof pid === "number" ? pid : undefined,
    }));
    return { format, damage, vms };
  } finally {
    database.close();
  }
};
