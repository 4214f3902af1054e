/** Processes, sockets and folders that no VM owns. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../../contract/errors.ts";
import { formatSize } from "../../contract/names.ts";
import { bytesOnDisk, exists, readFileIfThere } from "../../host/files.ts";
import {
  imageFilesIn,
  imagesFolder,
  kernelFiles,
  kernelsFolder,
  stagingFolder,
  vmFiles,
  vmSocketsFolder,
  vmsFolder,
} from "../../host/paths.ts";
import { processesNaming, processStartTime } from "../../host/proc.ts";
import { advise, type Check, type CheckResult, type Fix, fail, pass, warn } from "./check.ts";
import { type RecordedVm, readRecorded } from "./recorded.ts";

/** Of a folder that may not be there. */
export const namesIn = async (folder: string): Promise<string[]> => {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
};

const ID = /[0-9a-f]{32}/;

/** A shell or an editor that names a path of a VM's is nobody's machine. */
const isVmm = ([program = ""]: readonly string[]): boolean => /qemu|firecracker/.test(program);

/** Processes with a path of our VMs among their arguments, by the VM's id. The daemon and this command name none. */
const processesOfVms = async (): Promise<{ pid: number; id: string }[]> => {
  const prefix = `${vmsFolder()}/`;
  const found: { pid: number; id: string }[] = [];
  for (const { pid, argv } of await processesNaming(prefix)) {
    if (!isVmm(argv)) continue;
    const words = argv.join(" ");
    const id = ID.exec(words.slice(words.indexOf(prefix)))?.[0];
    // One that stands ready (daemon/vms/pool.ts) is the daemon's, whichever comes next.
    if (id !== undefined && !(await exists(vmFiles(id).ready))) found.push({ pid, id });
  }
  return found;
};

/** VMMs on a disk that is being made, by a daemon that has died. */
const processesOfStaging = async (): Promise<{ pid: number }[]> => {
  const left = await stagingLeft();
  const found = await Promise.all(left.map((path) => processesNaming(`${path}/`)));
  return found.flat().filter(({ argv }) => isVmm(argv));
};

const recorded = async (): Promise<RecordedVm[] | undefined> => {
  try {
    return (await readRecorded())?.vms ?? [];
  } catch {
    // Its own check says so; without it nobody can tell what is left over.
    return undefined;
  }
};

const processCheck: Check = {
  name: "stray processes",
  look: async () => {
    const vms = await recorded();
    if (!vms) return pass("unknown while the state database cannot be read");
    const stray = [
      ...(await processesOfVms()).filter(
        ({ pid, id }) => !vms.some((vm) => vm.id === id && (vm.pid === pid || vm.state === "starting")),
      ),
      ...(await processesOfStaging()),
    ];
    if (stray.length === 0) return pass("none");
    return fail(
      `a VMM runs that no VM owns: ${stray.map(({ pid }) => `pid ${pid}`).join(", ")}`,
      ...stray.map(({ pid }): Fix => ["kill", String(pid)]),
    );
  },
};

/** Whether somebody listens on a socket in the folder, such as the machine of a template that is being made: that one is in no record. */
const isListenedTo = async (folder: string): Promise<boolean> =>
  ((await readFileIfThere("/proc/net/unix")) ?? "").includes(`${folder}/`);

const socketCheck: Check = {
  name: "stray sockets",
  look: async () => {
    const vms = await recorded();
    if (!vms) return pass("unknown while the state database cannot be read");
    const paths: string[] = [];
    for (const name of await namesIn(vmSocketsFolder())) {
      const path = join(vmSocketsFolder(), name);
      if (!vms.some(({ id, state }) => id === name && state !== "stopped") && !(await isListenedTo(path)))
        paths.push(path);
    }
    if (paths.length === 0) return pass("none");
    return warn(`of no VM that runs: ${paths.join(", ")}`, ...paths.map((path): Fix => ["rm", "-r", path]));
  },
};

/** `purpose-pid-start time-random`, see daemon/artifacts/staging.ts; the middle one is left out by short-lived ones. */
const STAGING = /^[a-z-]+-(\d+)(?:-(\d+))?-[0-9a-f]{8}$/;

const stagingLeft = async (): Promise<string[]> => {
  const left: string[] = [];
  for (const name of await namesIn(stagingFolder())) {
    const [, pid, started] = STAGING.exec(name) ?? [];
    const alive = pid === undefined ? undefined : await processStartTime(Number(pid));
    if (alive === undefined || (started !== undefined && started !== alive)) left.push(join(stagingFolder(), name));
  }
  return left;
};

const folderCheck: Check = {
  name: "stray folders",
  look: async (): Promise<CheckResult> => {
    const staging = await stagingLeft();
    const halves: string[] = [];
    for (const [folder, files] of [
      [imagesFolder(), imageFilesIn],
      [kernelsFolder(), kernelFiles],
    ] as const)
      for (const name of await namesIn(folder))
        if (!(await exists(files(name).manifest))) halves.push(join(folder, name));
    const left = [...staging, ...halves];
    if (left.length > 0)
      return warn(`half-made and owned by nobody: ${left.join(", ")}`, ...left.map((path): Fix => ["rm", "-r", path]));
    const vms = await recorded();
    const unknown: string[] = [];
    for (const id of await namesIn(vmsFolder()))
      if (vms && !vms.some((vm) => vm.id === id) && !(await exists(vmFiles(id).ready))) unknown.push(id);
    const [first] = unknown;
    if (first === undefined) return pass("none");
    const { folder, disk } = vmFiles(first);
    const size = (await exists(disk)) ? `, ${formatSize(await bytesOnDisk(disk))}` : "";
    // Somebody's work may be on it: no command of ours takes it away.
    return advise(
      warn(
        `a disk without a VM in the database: ${folder}${size}${unknown.length > 1 ? ` and ${unknown.length - 1} more` : ""}`,
      ),
      `if nothing on it is wanted any more: rm -r '${folder}'`,
    );
  },
};

export const leftoverChecks: readonly Check[] = [processCheck, socketCheck, folderCheck];
