/** What a change that is asked of a VM means for it now and at its next start. */
import { BangerError } from "../../contract/errors.ts";
import { formatSize } from "../../contract/names.ts";
import type { SetEffect, SetVm } from "../../contract/vms.ts";
import type { VmRow } from "../store/vms.ts";

export type Change = {
  /** Of the record. */
  record: Partial<VmRow>;
  /** By the name of the field. */
  effects: Record<string, SetEffect>;
};

/** A VM keeps at most so many labels: they travel with every listing. */
const MAX_LABELS = 64;

/**
 * @param request checked by its schema
 * @throws USAGE for a disk that would shrink or too many labels; nothing is changed then
 */
export const planChange = (row: VmRow, request: SetVm): Change => {
  const { vcpu, memory, network, diskSize, autoStop, labels, workspace } = request;
  const effects: Change["effects"] = {};
  const record: Partial<VmRow> = {};
  const running = row.state !== "stopped";

  const next = { ...row.next };
  const shape = { vcpu, memory, network };
  for (const field of ["vcpu", "memory", "network"] as const) {
    const wanted = shape[field];
    if (wanted === undefined) continue;
    // What it has already needs no restart, and takes back what was to come.
    delete next[field];
    if (!running) Object.assign(record, { [field]: wanted });
    else if (wanted !== row[field]) Object.assign(next, { [field]: wanted });
    effects[field] = !running ? "start" : wanted === row[field] ? "now" : "restart";
  }
  record.next = next;

  if (diskSize !== undefined) {
    if (diskSize < row.diskSize) throw shrinks(row, diskSize);
    record.diskSize = diskSize;
    // What sleeps wakes with the disk that its guest knows.
    effects.diskSize = row.state === "asleep" ? "restart" : running ? "now" : "start";
  }
  if (autoStop !== undefined) {
    record.autoStop = autoStop ?? undefined;
    effects.autoStop = "now";
  }
  if (labels !== undefined) {
    record.labels = applyLabels(row.labels, labels);
    effects.labels = "now";
  }
  if (workspace !== undefined) {
    record.workspace = workspace ?? undefined;
    effects.workspace = "now";
  }
  return { record, effects };
};

/** @throws USAGE for more labels than a VM may have */
export const applyLabels = (
  present: Readonly<Record<string, string>>,
  change: Readonly<Record<string, string | null>>,
): Record<string, string> => {
  const merged = Object.entries({ ...present, ...change }).filter(
    (entry): entry is [string, string] => entry[1] !== null,
  );
  if (merged.length <= MAX_LABELS) return Object.fromEntries(merged);
  throw new BangerError("USAGE", `a VM can have ${MAX_LABELS} labels, not ${merged.length}`, {
    hint: "take some away with `banger vm set VM --unlabel KEY`",
  });
};

const shrinks = (row: VmRow, wanted: number) =>
  new BangerError(
    "USAGE",
    `the disk of VM ${row.name} has ${formatSize(row.diskSize)} and cannot shrink to ${formatSize(wanted)}: what lies behind would be lost`,
    { hint: "copy what you need to a new VM with a smaller disk: banger vm cp", details: { diskSize: row.diskSize } },
  );
