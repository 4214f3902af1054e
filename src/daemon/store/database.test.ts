import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { vmRow } from "../../../test/support/vm-row.ts";
import { migrations, openDatabase } from "./database.ts";
import { vmStore } from "./vms.ts";

const inFolder = async (use: (path: string) => Promise<void>): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), "banger-store-"));
  try {
    await use(join(folder, "banger.db"));
  } finally {
    await rm(folder, { recursive: true });
  }
};

/** From this format on a VM has an address when it is made. */
const WITH_ADDRESS = 6;

/** A database as the version with so many migrations left it, with one VM in it. */
const olderDatabase = (path: string, version: number): void => {
  const database = new DatabaseSync(path);
  for (const sql of migrations.slice(0, version)) database.exec(sql);
  if (version > 0) {
    database.exec(`PRAGMA user_version = ${version};
      INSERT INTO vms (id, name, image, kernel, vcpu, memory, disk_size, network, env, ephemeral, mac, state, vmm, accel, created_at, notes, pid, pid_start, epoch)
      VALUES ('0123456789abcdef0123456789abcdef', 'box', 'i', 'k', 2, 1024, 4096, 'user', '{"A":"b"}', 0, '02:00:00:00:00:01', 'running', 'qemu', 'tcg', 5, '["n"]', 7, '8', 3)`);
  }
  database.close();
};

for (let version = 0; version <= migrations.length; version++) {
  test(`a database of format ${version} is taken up with what it holds`, () =>
    inFolder(async (path) => {
      olderDatabase(path, version);
      const database = await openDatabase(path);
      const store = vmStore(database);
      const [vm] = store.all();
      if (version === 0) assert.equal(vm, undefined);
      else {
        const kept = { vcpu: 2, memory: 1024, diskSize: 4096, network: "user", env: { A: "b" }, notes: ["n"] } as const;
        const expected = { ...kept, createdAt: 5, pid: 7, pidStart: "8", epoch: 3, startedAt: undefined };
        // One that had no address was given one of its own.
        if (version < WITH_ADDRESS)
          assert.match(vm?.address ?? "", /^127\.(6[4-9]|[7-9]\d|1[0-8]\d|19[01])\.\d+\.\d+$/);
        assert.deepEqual(vm, vmRow({ ...expected, address: vm?.address ?? "" }));
      }
      const other = vmRow({
        id: "f".repeat(32),
        name: "other",
        mac: "02:00:00:00:00:02",
        labels: { a: "b" },
        autoStop: 9,
      });
      store.insert(other);
      assert.deepEqual(
        store.all().find(({ name }) => name === "other"),
        other,
      );
      assert.equal(database.prepare("PRAGMA user_version").get()?.user_version, migrations.length);
      database.close();
      // Opened again, nothing is left to do.
      (await openDatabase(path)).close();
    }));
}

test("a database of a later version is refused and left as it is", () =>
  inFolder(async (path) => {
    const database = new DatabaseSync(path);
    database.exec(`PRAGMA user_version = ${migrations.length + 1}; CREATE TABLE later (x)`);
    database.close();
    await assert.rejects(openDatabase(path), { code: "STATE_NEWER", message: /later version/, hint: /update banger/ });
    const again = new DatabaseSync(path);
    assert.equal(again.prepare("PRAGMA user_version").get()?.user_version, migrations.length + 1);
    again.close();
  }));

test("a migration that fails leaves the version before it, whole", () =>
  inFolder(async (path) => {
    olderDatabase(path, 1);
    const broken = [migrations[0] ?? "", "ALTER TABLE vms ADD COLUMN labels TEXT; INSERT INTO nowhere VALUES (1)"];
    await assert.rejects(openDatabase(path, broken), /nowhere/);
    const database = await openDatabase(path);
    assert.equal(vmStore(database).all().length, 1);
    database.close();
  }));

test("a damaged database is named, with what to do", () =>
  inFolder(async (path) => {
    await writeFile(path, "this is no database, and long enough not to be taken for an empty one".repeat(100));
    await assert.rejects(openDatabase(path), { code: "STATE_DAMAGED", message: /banger\.db/, hint: /disks/ });
  }));

test("SQLite's settings hold on the connection", () =>
  inFolder(async (path) => {
    const database = await openDatabase(path);
    const pragma = (name: string) => Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0];
    assert.deepEqual([pragma("journal_mode"), pragma("foreign_keys"), pragma("busy_timeout")], ["wal", 1, 5000]);
    database.close();
  }));
