/** One daemon per user: a lock that the kernel frees when its holder dies. */
import { chmod } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";

/** SQLite's "database is locked". */
const SQLITE_BUSY = 5;

/**
 * Takes the lock for as long as this process lives. SQLite's exclusive lock is a POSIX record lock on the file, which Node has no call of its own for.
 * @returns false when another process holds it
 */
export const takeLock = async (path: string): Promise<boolean> => {
  const database = new DatabaseSync(path);
  await chmod(path, 0o600);
  try {
    database.exec(
      "PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE;",
    );
    held.push(database);
    return true;
  } catch (error) {
    database.close();
    if (error instanceof Error && "errcode" in error && error.errcode === SQLITE_BUSY) return false;
    throw error;
  }
};

/** Before the end: the next daemon need not wait for the kernel to notice it. */
export const releaseLocks = (): void => {
  for (const database of held.splice(0)) database.close();
};

/** A collected database would let go of its lock. */
const held: DatabaseSync[] = [];
