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

/** A reader of a database in WAL mode makes files of its own beside it, unless it is told that nobody writes. */
const openReadOnly = async (path: string): Promise<DatabaseSync> => {
  const url = pathToFileURL(path);
  if (!(await exists(`${path}-wal`))) url.searchParams.set("immutable", "1");
  return new DatabaseSync(url, { readOnly: true });
};

/**
 * @returns undefined when there is none yet
 * @throws SQLite's error when it is no database
 */
export const readRecorded = async (path = databaseFile()): Promise<StateDatabase | undefined> => {
  if (!(await exists(path))) return undefined;
  const database = await openReadOnly(path);
  try {
    database.exec("PRAGMA busy_timeout = 2000");
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
