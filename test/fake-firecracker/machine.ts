/** A whole guest behind the stand-in: a QEMU without KVM that boots the kernel, initramfs and drives that Firecracker was told of. */
import { createWriteStream } from "node:fs";
import { readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { Duplex } from "node:stream";
import { silentProgress } from "../../src/contract/progress.ts";
import type { Machine, SavedMachine } from "../../src/vmm/driver.ts";
import { qemuDriver } from "../../src/vmm/qemu/driver.ts";

/** What Firecracker was configured with. Paths are relative to its working folder. */
export type FakeMachine = {
  vcpu: number;
  /** MiB. */
  memory: number;
  kernel: string;
  initramfs: string;
  drives: readonly { path: string; readonly: boolean }[];
  /** Gets what the guest's console writes; undefined: nobody does. */
  serial: string | undefined;
};

export type GuestMachine = {
  /** @param onUp the agent listens; @param saved devices, as `save` gave them, and the file of the memory */
  start(machine: FakeMachine, onUp: () => void, saved?: { devices: string; memory: string }): Promise<void>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Writes the memory to a file, and returns the devices. */
  save(memory: string): Promise<string>;
  /** A drive's file has another size. */
  grown(index: number): Promise<void>;
  openAgentChannel(): Promise<Duplex>;
};

/** Its files lie in a folder of their own below the stand-in's. */
const place = (name: string) => resolve("guest", name);
const MiB = 2 ** 20;

/** @param qemu a program that ends with the process that starts it */
export const guestMachine = (qemu: string): GuestMachine => {
  const driver = qemuDriver(qemu);
  let running: Machine | undefined;
  let started: FakeMachine | undefined;
  let base: string | undefined;
  const machine = (): Machine => {
    if (!running) throw new Error("the guest has not been started");
    return running;
  };
  return {
    start: async (wanted, onUp, saved) => {
      started = wanted;
      let restore: SavedMachine | undefined;
      if (saved) {
        base = resolve(saved.memory);
        restore = { state: resolve("guest.state"), memory: base };
        await writeFile(restore.state, Buffer.from(saved.devices, "base64"));
      }
      running = await driver.start(
        {
          name: "stand-in",
          vcpu: wanted.vcpu,
          memory: wanted.memory * MiB,
          nested: false,
          kernel: wanted.kernel,
          initramfs: wanted.initramfs,
          kernelArguments: [],
          // By the links in Firecracker's own folder: banger would find this QEMU by the files they lead to, and end it.
          disks: wanted.drives.map(({ path, readonly }) => ({ path: resolve(path), readonly })),
          nic: undefined,
          sockets: { folder: place(""), agent: place("a"), control: place("c"), console: place("s") },
          log: resolve("guest.log"),
          networkLog: resolve("guest-network.log"),
          saving: place("saving"),
          restore,
        },
        async () => undefined,
        silentProgress(),
      );
      if (wanted.serial === undefined) running.console.resume();
      else running.console.pipe(createWriteStream(wanted.serial, { flags: "r+" }));
      running.onAgentPort((open) => open && onUp());
      // As a reset of the guest ends Firecracker.
      void running.ended.then(() => process.exit(0));
      if (saved) onUp();
    },
    pause: () => machine().pause(),
    resume: () => machine().resume(),
    save: async (memory) => {
      const target = { state: resolve("saved.state"), memory: resolve("saved.memory") };
      await rm(target.memory, { force: true });
      const memorySize = (started?.memory ?? 0) * MiB;
      await machine().save({ memorySize, base, target, goOn: false }, silentProgress());
      const devices = await readFile(target.state, "base64");
      await rename(target.memory, memory).catch(async () => {
        // The runtime folder may lie on another file system.
        await writeFile(memory, await readFile(target.memory));
        await rm(target.memory);
      });
      return devices;
    },
    grown: async (index) => machine().growDisk(index, (await stat(started?.drives[index]?.path ?? "")).size),
    openAgentChannel: () => machine().openAgentChannel(),
  };
};
