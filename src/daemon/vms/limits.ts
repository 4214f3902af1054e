/** What VMs ask for against what the host has: told before it hurts, refused when it cannot work. */
import { statfs } from "node:fs/promises";
import { BangerError } from "../../contract/errors.ts";
import { formatSize } from "../../contract/names.ts";
import { type HostMemory, hostMemory } from "../../host/memory.ts";

/** Bytes. */
export type HostRoom = {
  memory: HostMemory;
  /** Of the file system that holds the VMs' disks. */
  diskTotal: number;
  diskFree: number;
};

/** With less a guest does not even boot. */
const LEAST_MEMORY = 128 * 2 ** 20;
/** With less on the host the first thing a guest writes pauses it. */
const LEAST_DISK = 64 * 2 ** 20;

/** @param folder on the file system of the disks; it must be there */
export const hostRoom = async (folder: string): Promise<HostRoom> => {
  const [memory, disk] = await Promise.all([hostMemory(), statfs(folder)]);
  return { memory, diskTotal: disk.blocks * disk.bsize, diskFree: disk.bavail * disk.bsize };
};

const refuse = (message: string, less: string): never => {
  throw new BangerError("HOST_LIMIT", message, { hint: `${less}, or try it all the same with --force` });
};

/** @throws HOST_LIMIT when a VM of so much memory could not run even alone, unless `force` */
export const checkOwnMemory = (memory: number, room: HostRoom, force: boolean): void => {
  const whole = room.memory.total + room.memory.swapTotal;
  if (!force && memory > whole)
    refuse(
      `a VM of ${formatSize(memory)} cannot run on a host with ${formatSize(whole)}`,
      "give it less with --memory",
    );
};

/**
 * Before a VM starts.
 * @param memory of the VM, in bytes
 * @param promised to the VMs that run already, in bytes
 * @returns what its user should know
 * @throws HOST_LIMIT when it cannot work, unless `force`
 */
export const checkMemory = (memory: number, promised: number, room: HostRoom, force: boolean): string[] => {
  checkOwnMemory(memory, room, force);
  const left = room.memory.available + room.memory.swapFree;
  if (!force && left < Math.min(memory, LEAST_MEMORY))
    refuse(
      `the host has only ${formatSize(left)} of memory left`,
      "stop another VM (`banger vm stats` shows which takes most)",
    );
  if (memory > left)
    return [`the VM may use ${formatSize(memory)} of memory, and the host has ${formatSize(left)} left now`];
  if (promised + memory > room.memory.total) {
    const sum = formatSize(promised + memory);
    return [`the VMs that run may use ${sum} of memory together, and the host has ${formatSize(room.memory.total)}`];
  }
  return [];
};

/**
 * Before a VM gets a disk, or a larger one.
 * @param size of the disk that was asked for, in bytes; undefined: it is the default, and nobody's mistake
 * @param growth what that disk and all others may still take of the host, in bytes
 * @returns what its user should know
 * @throws HOST_LIMIT when it cannot work, unless `force`
 */
export const checkDisk = (size: number | undefined, growth: number, room: HostRoom, force: boolean): string[] => {
  if (!force && size !== undefined && size > room.diskTotal)
    refuse(
      `a disk of ${formatSize(size)} can never be filled: the host's has ${formatSize(room.diskTotal)}`,
      "make it smaller with --disk-size",
    );
  if (!force && room.diskFree < LEAST_DISK)
    refuse(
      `the host's disk is full: ${formatSize(room.diskFree)} are left`,
      "free some space (`banger vm prune`, `banger image list`)",
    );
  if (growth <= room.diskFree) return [];
  return [
    `the disks of all VMs may grow by ${formatSize(growth)} together, and the host has ${formatSize(room.diskFree)} free; a VM that finds it full is paused`,
  ];
};
