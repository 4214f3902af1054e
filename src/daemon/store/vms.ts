/** The record of every VM. Written before what it tells of is used, so that a crash strands nothing. */
import type { SQLOutputValue } from "node:sqlite";
import type { NetRule } from "../../contract/network.ts";
import type { SecretRecord } from "../../contract/secrets.ts";
import type { Vm, VmState } from "../../contract/vms.ts";
import type { ProcessIdentity } from "../../vmm/driver.ts";
import type { Database } from "./database.ts";

/** What a VM that did not boot went on from. */
export type RestoredFrom = "template" | "snapshot" | "sleep";

/** A published port as it is recorded. */
export type RecordedPort = {
  proto: "tcp" | "udp";
  guest: number;
  host: number;
  /** Absent: the VM's own. */
  address?: string;
};

/** A VM as it is recorded. Sizes are bytes, times are milliseconds since 1970. */
export type VmRow = {
  id: string;
  name: string;
  image: string;
  kernel: string;
  vcpu: number;
  memory: number;
  diskSize: number;
  network: Vm["network"];
  nested: boolean;
  env: Record<string, string>;
  ephemeral: boolean;
  labels: Record<string, string>;
  /** Of a running VM: what it gets at its next start. */
  next: { vcpu?: number; memory?: number; network?: Vm["network"] };
  /** Its own setting in ms; 0: never; undefined: the config's. */
  autoStop: number | undefined;
  lastUsedAt: number | undefined;
  mac: string;
  state: VmState;
  vmm: string;
  accel: string;
  createdAt: number;
  startedAt: number | undefined;
  stoppedAt: number | undefined;
  reason: string | undefined;
  notes: readonly string[];
  pid: number | undefined;
  /** Start time of that process (host/proc.ts). */
  pidStart: string | undefined;
  /** Boot of the host in which that process was started (host/proc.ts). */
  hostBoot: string | undefined;
  /** Processes that serve the network of that one. */
  helpers: readonly ProcessIdentity[];
  /** Of its present or last run; undefined where it booted. */
  restored: RestoredFrom | undefined;
  /** Its own loopback address on the host. */
  address: string;
  published: readonly RecordedPort[];
  /** Of its network; the first that fits decides. */
  rules: readonly NetRule[];
  /** Absent: it reaches no other VM. */
  team: Vm["team"];
  /** Their values are in a file of the VM's folder, and nowhere else. */
  secrets: readonly SecretRecord[];
  /** Whatever comes to listen in the guest is published too. */
  autoPublish: boolean;
  /** The repository that was brought in last. */
  workspace: Vm["workspace"];
  /** Of the last connection to the guest agent. */
  epoch: number;
};

type Column = { name: string; write(value: unknown): string | number | null; read(value: SQLOutputValue): unknown };

const plain = (name: string): Column => ({
  name,
  write: (value) => (value === undefined ? null : (value as string | number)),
  read: (value) => value ?? undefined,
});
const json = (name: string): Column => ({
  name,
  write: (value) => JSON.stringify(value),
  read: (value) => JSON.parse(String(value)),
});
const optionalJson = (name: string): Column => ({
  name,
  write: (value) => (value === undefined ? null : JSON.stringify(value)),
  read: (value) => (value === null ? undefined : JSON.parse(String(value))),
});
const flag = (name: string): Column => ({ name, write: (value) => (value ? 1 : 0), read: (value) => value === 1 });

const columns: Record<keyof VmRow, Column> = {
  id: plain("id"),
  name: plain("name"),
  image: plain("image"),
  kernel: plain("kernel"),
  vcpu: plain("vcpu"),
  memory: plain("memory"),
  diskSize: plain("disk_size"),
  network: plain("network"),
  nested: flag("nested"),
  env: json("env"),
  ephemeral: flag("ephemeral"),
  labels: json("labels"),
  next: json("next"),
  autoStop: plain("auto_stop"),
  lastUsedAt: plain("last_used_at"),
  mac: plain("mac"),
  state: plain("state"),
  vmm: plain("vmm"),
  accel: plain("accel"),
  createdAt: plain("created_at"),
  startedAt: plain("started_at"),
  stoppedAt: plain("stopped_at"),
  reason: plain("reason"),
  notes: json("notes"),
  pid: plain("pid"),
  pidStart: plain("pid_start"),
  hostBoot: plain("host_boot"),
  helpers: json("helpers"),
  restored: plain("restored"),
  address: plain("address"),
  published: json("published"),
  rules: json("rules"),
  team: optionalJson("team"),
  secrets: json("secrets"),
  autoPublish: flag("auto_publish"),
  workspace: optionalJson("workspace"),
  epoch: plain("epoch"),
};
const fields = Object.entries(columns) as [keyof VmRow, Column][];

const fromRecord = (record: Record<string, SQLOutputValue>): VmRow =>
  Object.fromEntries(fields.map(([field, column]) => [field, column.read(record[column.name] ?? null)])) as VmRow;

export type VmStore = {
  all(): VmRow[];
  /** @throws SQLite's constraint error when id, name or MAC is taken */
  insert(row: VmRow): void;
  update(id: string, change: Partial<VmRow>): void;
  remove(id: string): void;
};

export const vmStore = (database: Database): VmStore => {
  const insert = database.prepare(
    `INSERT INTO vms (${fields.map(([, { name }]) => name).join(", ")}) VALUES (${fields.map(() => "?").join(", ")})`,
  );
  const all = database.prepare("SELECT * FROM vms ORDER BY created_at, name");
  const remove = database.prepare("DELETE FROM vms WHERE id = ?");
  return {
    all: () => all.all().map(fromRecord),
    insert: (row) => void insert.run(...fields.map(([field, column]) => column.write(row[field]))),
    update: (id, change) => {
      const changed = fields.filter(([field]) => field in change);
      const assignments = changed.map(([, { name }]) => `${name} = ?`).join(", ");
      database
        .prepare(`UPDATE vms SET ${assignments} WHERE id = ?`)
        .run(...changed.map(([field, column]) => column.write(change[field])), id);
    },
    remove: (id) => void remove.run(id),
  };
};
