/** The one SQLite database of a user's banger: opening it, and its ordered migrations. */
import { chmod, mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { BangerError } from "../../contract/errors.ts";

/** Each runs once, in order, in a transaction of its own. Never edit one that has shipped: add another. */
export const migrations: readonly string[] = [
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
  `ALTER TABLE vms ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
   ALTER TABLE vms ADD COLUMN next TEXT NOT NULL DEFAULT '{}';
   ALTER TABLE vms ADD COLUMN auto_stop INTEGER;
   ALTER TABLE vms ADD COLUMN last_used_at INTEGER;
   ALTER TABLE vms ADD COLUMN host_boot TEXT`,
  `ALTER TABLE vms ADD COLUMN helpers TEXT NOT NULL DEFAULT '[]'`,
  "ALTER TABLE vms ADD COLUMN restored TEXT",
  "ALTER TABLE vms ADD COLUMN workspace TEXT",
  // An address for those that are there: as those that network/address.ts chooses.
  `ALTER TABLE vms ADD COLUMN address TEXT NOT NULL DEFAULT '';
   UPDATE vms SET address = '127.' || (64 + abs(random() % 128)) || '.' || abs(random() % 256) || '.' || (1 + abs(random() % 254));
   ALTER TABLE vms ADD COLUMN published TEXT NOT NULL DEFAULT '[]';
   ALTER TABLE vms ADD COLUMN auto_publish INTEGER NOT NULL DEFAULT 0`,
  "ALTER TABLE vms ADD COLUMN nested INTEGER NOT NULL DEFAULT 0",
  "ALTER TABLE vms ADD COLUMN rules TEXT NOT NULL DEFAULT '[]'",
  "ALTER TABLE vms ADD COLUMN team TEXT",
  "ALTER TABLE vms ADD COLUMN secrets TEXT NOT NULL DEFAULT '[]'",
];

export type Database = DatabaseSync;

/**
 * Opens the database, making or migrating it as needed. When it throws, the database is closed and as it was.
 * @param steps the migrations, in order
 * @throws STATE_NEWER when a later banger has written it, STATE_DAMAGED when SQLite cannot read it
 */
export const openDatabase = async (path: string, steps = migrations): Promise<Database> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const database = new DatabaseSync(path);
  try {
    await chmod(path, 0o600);
    database.exec(
      "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;",
    );
    migrate(database, path, steps);
    return database;
  } catch (error) {
    // What a migration had begun is rolled back with it.
    database.close();
    throw isDamage(error) ? damaged(path, error) : error;
  }
};

/** SQLite's numbers for a file that is damaged, and for one that is no database; extended codes have more above the lowest byte. */
const DAMAGE = [11, 26];

const isDamage = (error: unknown): boolean =>
  error instanceof Error && "errcode" in error && DAMAGE.includes(Number(error.errcode) & 0xff);

const damaged = (path: string, cause: unknown) =>
  new BangerError("STATE_DAMAGED", `${path} is damaged: ${cause instanceof Error ? cause.message : String(cause)}`, {
    hint: `move it away to start with an empty list of VMs (mv '${path}' '${path}.damaged'); their disks stay below ${dirname(path)}/vms`,
    cause,
  });

const migrate = (database: Database, path: string, steps: readonly string[]): void => {
  const version = Number(database.prepare("PRAGMA user_version").get()?.user_version ?? 0);
  if (version > steps.length) {
    throw new BangerError(
      "STATE_NEWER",
      `${path} was written by a later version of banger (format ${version}, this one knows ${steps.length})`,
      {
        hint: "update banger, or move that file away to start with an empty list of VMs",
      },
    );
  }
  for (const [index, sql] of steps.entries()) {
    if (index < version) continue;
    database.exec(`BEGIN IMMEDIATE; ${sql}; PRAGMA user_version = ${index + 1}; COMMIT;`);
  }
};
