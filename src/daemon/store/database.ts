/** The one SQLite database of a user's banger: opening it, and its ordered migrations. */
import { chmod, mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { BangerError } from "../../contract/errors.ts";

/** Each runs once, in order, in a transaction of its own. Never edit one that has shipped: add another. */
const migrations: readonly string[] = [
  `CREATE TABLE vms (
     id TEXT PRIMARY KEY,
     name TEXT NOT NULL UNIQUE,
     image TEXT NOT NULL,
     kernel TEXT NOT NULL,
     vcpu INTEGER NOT NULL,
     memory INTEGER NOT NULL,
     disk_size INTEGER NOT NULL,
     network TEXT NOT NULL,
     env TEXT NOT NULL,
     ephemeral INTEGER NOT NULL,
     mac TEXT NOT NULL UNIQUE,
     state TEXT NOT NULL,
     vmm TEXT NOT NULL,
     accel TEXT NOT NULL,
     created_at INTEGER NOT NULL,
     started_at INTEGER,
     stopped_at INTEGER,
     reason TEXT,
     notes TEXT NOT NULL,
     pid INTEGER,
     pid_start TEXT,
     epoch INTEGER NOT NULL DEFAULT 0
   ) STRICT`,
];

export type Database = DatabaseSync;

/**
 * Opens the database, making or migrating it as needed.
 * @throws STATE_NEWER when a later banger has written it
 */
export const openDatabase = async (path: string): Promise<Database> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const database = new DatabaseSync(path);
  await chmod(path, 0o600);
  database.exec(
    "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;",
  );
  migrate(database, path);
  return database;
};

const migrate = (database: Database, path: string): void => {
  const version = Number(database.prepare("PRAGMA user_version").get()?.user_version ?? 0);
  if (version > migrations.length) {
    database.close();
    throw new BangerError(
      "STATE_NEWER",
      `${path} was written by a later version of banger (format ${version}, this one knows ${migrations.length})`,
      {
        hint: "update banger, or move that file away to start with an empty list of VMs",
      },
    );
  }
  for (const [index, sql] of migrations.entries()) {
    if (index < version) continue;
    database.exec(`BEGIN IMMEDIATE; ${sql}; PRAGMA user_version = ${index + 1}; COMMIT;`);
  }
};
