/** Snapshots: VMs saved under a name, and VMs that go on from them. A fork is a snapshot that nobody keeps. */
import { BangerError, nearest, toBangerError } from "../../contract/errors.ts";
import { checkName, isName } from "../../contract/names.ts";
import type { Progress } from "../../contract/progress.ts";
import type { RestoreRequest, SnapshotInfo } from "../../contract/snapshots.ts";
import { bytesOnDisk, exists } from "../../host/files.ts";
import { type SavedFiles, savedFiles, snapshotFiles, snapshotsFolder } from "../../host/paths.ts";
import { installedNames, publish, unpublish } from "../artifacts/published.ts";
import { stagingTree } from "../artifacts/staging.ts";
import { readSaved, SAVED_MODE, type SavedManifest, verifySaved } from "../saved/saved.ts";
import { unattended, type VmActor } from "../vms/actor.ts";
import type { KeptSecret } from "../secrets/values.ts";
import type { VmService } from "../vms/service.ts";
import type { BootServices } from "../vms/services.ts";
import { snapshotSource } from "../vms/source.ts";
import { exportSaved, importSaved } from "./transfer.ts";

export type SnapshotService = {
  /**
   * Saves a VM, which goes on.
   * @param name undefined: the VM's name and a number
   * @throws SNAPSHOT_NAME_TAKEN, VM_WRONG_STATE, DISK_FULL
   */
  take(
    actor: VmActor,
    name: string | undefined,
    progress: Progress,
  ): Promise<{ snapshot: SnapshotInfo; pause: number; memoryWritten: number }>;
  /** A new VM that goes on from it; when it cannot be started nothing of it is left. */
  restore(name: string, request: RestoreRequest, progress: Progress): Promise<VmActor>;
  /** New VMs that go on from this one as it is now; all of them, or none. */
  fork(
    actor: VmActor,
    request: { count: number; prefix?: string | undefined },
    progress: Progress,
  ): Promise<{ actors: VmActor[]; pause: number }>;
  /** Those that are damaged too: they can be deleted. */
  list(): Promise<SnapshotInfo[]>;
  /** @throws SNAPSHOT_NOT_FOUND */
  show(name: string): Promise<SnapshotInfo>;
  /**
   * Writes it into one file.
   * @throws SNAPSHOT_NOT_FOUND, SAVED_CORRUPT, FILE_REFUSED, DISK_FULL
   */
  export(name: string, path: string, progress: Progress): Promise<{ path: string; size: number }>;
  /** @throws SNAPSHOT_NAME_TAKEN, SAVED_CORRUPT, FILE_NOT_FOUND, DISK_FULL */
  import(path: string, name: string, progress: Progress): Promise<SnapshotInfo>;
  /** VMs that were restored from it go on. */
  delete(name: string): Promise<void>;
};

export const snapshotService = (vms: VmService, services: BootServices): SnapshotService => {
  const find = async (name: string): Promise<{ files: SavedFiles; manifest: SavedManifest }> => {
    const files = snapshotFiles(name);
    const manifest = isName(name) ? await readSaved(files) : undefined;
    if (manifest) return { files, manifest };
    const near = nearest(name, await installedNames(snapshotsFolder()));
    throw new BangerError("SNAPSHOT_NOT_FOUND", `there is no snapshot ${JSON.stringify(name)}`, {
      hint: near ? `did you mean ${near}? See all with: banger snapshot list` : "see all with: banger snapshot list",
    });
  };

  const show = async (name: string): Promise<SnapshotInfo> => {
    const { files, manifest } = await find(name);
    return await infoOf(name, files, manifest);
  };

  const freeName = async (base: string): Promise<string> => {
    for (let number = 1; ; number++) {
      const suffix = `-${number}`;
      const name = `${base.slice(0, 63 - suffix.length)}${suffix}`;
      if (!(await exists(snapshotFiles(name).folder))) return name;
    }
  };

  const taken = (name: string) =>
    new BangerError("SNAPSHOT_NAME_TAKEN", `there is a snapshot named ${name} already`, {
      hint: `choose another name, or delete it: banger snapshot delete ${name}`,
    });

  /** Makes and starts a VM from a saved one. */
  const goOn = async (
    files: SavedFiles,
    manifest: SavedManifest,
    { name, secrets = [] }: RestoreRequest,
    values: readonly KeptSecret[],
    progress: Progress,
  ): Promise<VmActor> => {
    const { shape, vm } = manifest;
    const request = { ...shape, name, env: vm?.env ?? {}, labels: vm?.labels ?? {}, rules: vm?.rules ?? [], secrets };
    const created = await vms.create(request, progress, { secrets: vm?.secrets ?? [], values });
    try {
      // The repository is in the guest, so the new VM knows of it too.
      if (vm?.workspace) await created.set({ workspace: vm.workspace }, progress);
      await created.start(progress, { source: snapshotSource(created.row(), files, manifest, services) });
      return created;
    } catch (error) {
      // Never under the signal that brought us here.
      await created.remove(unattended);
      throw error;
    }
  };

  return {
    take: async (actor, wanted, progress) => {
      if (wanted !== undefined) checkName(wanted, "snapshot name");
      const name = wanted ?? (await freeName(actor.row().name));
      if (await exists(snapshotFiles(name).folder)) throw taken(name);
      await using staging = await stagingTree("snapshot");
      const { manifest, pause, memoryWritten } = await actor.save(savedFiles(staging.path), progress);
      // Another may have taken the name meanwhile.
      if (await exists(snapshotFiles(name).folder)) throw taken(name);
      await publish(staging.path, snapshotFiles(name).folder, SAVED_MODE);
      return { snapshot: await infoOf(name, snapshotFiles(name), manifest), pause, memoryWritten };
    },
    restore: async (name, request, progress) => {
      const { files, manifest } = await find(name);
      return await goOn(files, manifest, request, [], progress);
    },
    fork: async (actor, { count, prefix = actor.row().name }, progress) => {
      const names = freeNames(prefix, count, new Set(vms.list().map(({ name }) => name)));
      for (const name of names) checkName(name, "VM name");
      await using staging = await stagingTree("fork");
      const saved = savedFiles(staging.path);
      const { manifest, pause } = await actor.save(saved, progress);
      // Copies that go on at once are as much its user's as it is; what is saved for later holds no values.
      const values = await services.secrets.valuesOf(actor.row().id);
      const started = await Promise.allSettled(names.map((name) => goOn(saved, manifest, { name }, values, progress)));
      const actors = started.filter((one) => one.status === "fulfilled").map(({ value }) => value);
      const failed = started.find((one) => one.status === "rejected");
      if (!failed) return { actors, pause };
      await Promise.all(actors.map((one) => one.remove(unattended)));
      throw failed.reason;
    },
    list: async () => {
      const names = await installedNames(snapshotsFolder());
      return await Promise.all(
        names.map((name) =>
          show(name).catch((error: unknown) => {
            services.log.warn("snapshot is damaged", { name, error });
            return damagedInfo(name, toBangerError(error).message);
          }),
        ),
      );
    },
    show,
    export: async (name, path, progress) => {
      const { files, manifest } = await find(name);
      await verifySaved(files, manifest);
      return await exportSaved(files, manifest, path, progress);
    },
    import: async (path, wanted, progress) => {
      const name = checkName(wanted, "snapshot name");
      if (await exists(snapshotFiles(name).folder)) throw taken(name);
      await using staging = await stagingTree("snapshot");
      const manifest = await importSaved(path, staging.path, progress);
      if (await exists(snapshotFiles(name).folder)) throw taken(name);
      await publish(staging.path, snapshotFiles(name).folder, SAVED_MODE);
      return await infoOf(name, snapshotFiles(name), manifest);
    },
    delete: async (name) => {
      // One that is damaged can be deleted too.
      if (!isName(name) || !(await exists(snapshotFiles(name).folder))) await find(name);
      await unpublish(snapshotFiles(name).folder);
    },
  };
};

/** PREFIX-1, PREFIX-2 and so on, without those that are taken. */
const freeNames = (prefix: string, count: number, used: ReadonlySet<string>): string[] => {
  const names: string[] = [];
  for (let number = 1; names.length < count; number++) {
    const name = `${prefix}-${number}`;
    if (!used.has(name)) names.push(name);
  }
  return names;
};

/** Of one that tells nothing of itself any more. */
const damagedInfo = async (name: string, damaged: string): Promise<SnapshotInfo> => {
  const { state, memory, disk } = snapshotFiles(name);
  const sizes = await Promise.all([state, memory, disk].map((path) => bytesOnDisk(path).catch(() => 0)));
  const nothing = {
    vm: "",
    image: "",
    kernel: "",
    vcpu: 0,
    memory: 0,
    diskSize: 0,
    network: "",
    vmm: "",
    createdAt: 0,
  };
  return { name, ...nothing, diskUsed: sizes.reduce((sum, size) => sum + size, 0), damaged };
};

const infoOf = async (name: string, files: SavedFiles, { shape, vm, vmm, createdAt }: SavedManifest) => {
  const sizes = await Promise.all([files.state, files.memory, files.disk].map(bytesOnDisk));
  return { name, vm: vm?.name ?? "", ...shape, vmm, diskUsed: sizes.reduce((sum, size) => sum + size, 0), createdAt };
};
