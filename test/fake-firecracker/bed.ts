/** A Firecracker driver over the stand-in, in a folder of its own, and nothing left of it in the end. */
import assert from "node:assert/strict";
import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentProgress } from "../../src/contract/progress.ts";
import { callGuest } from "../../src/guest/call.ts";
import { connectGuest } from "../../src/guest/connection.ts";
import { agentBinary } from "../../src/host/paths.ts";
import { processesNaming } from "../../src/host/proc.ts";
import { signalGroup } from "../../src/host/process.ts";
import type { Driver, Machine, MachineIdentity, MachineSpec } from "../../src/vmm/driver.ts";
import { firecrackerDriver } from "../../src/vmm/firecracker/driver.ts";
import { processEnds } from "../support/wait.ts";
import { installFake } from "./install.ts";
import type { FakeSettings, RecordedRequest } from "./settings.ts";

export type Bed = {
  root: string;
  driver: Driver;
  spec: MachineSpec;
  program: string;
  requests(): Promise<RecordedRequest[]>;
  start(spec?: Partial<MachineSpec>, signal?: AbortSignal): Promise<Machine>;
  /** Everything that a start may leave is gone. */
  nothingLeft(): Promise<void>;
};

export const MEMORY = 64 * 2 ** 20;

export const withFake = async (settings: Partial<FakeSettings>, use: (bed: Bed) => Promise<void>): Promise<void> => {
  const root = await mkdtemp(join(tmpdir(), "fire-"));
  const { path, requests } = await installFake(root, { agent: agentBinary(), ...settings });
  const place = (name: string) => join(root, name);
  for (const name of ["kernel", "initramfs", "image", "disk.ext4", "modules"]) await writeFile(place(name), name);
  const folder = place("run");
  const spec: MachineSpec = {
    name: "box",
    vcpu: 2,
    memory: MEMORY,
    nested: false,
    kernel: place("kernel"),
    initramfs: place("initramfs"),
    kernelArguments: ["extra=1"],
    disks: [
      { path: place("image"), readonly: true },
      { path: place("disk.ext4"), readonly: false },
      { path: place("modules"), readonly: true },
    ],
    nic: undefined,
    sockets: {
      folder,
      agent: join(folder, "a.sock"),
      control: join(folder, "c.sock"),
      console: join(folder, "s.sock"),
    },
    log: place("vmm.log"),
    networkLog: place("network.log"),
    saving: place("saving"),
  };
  const driver = firecrackerDriver({ firecracker: path, qemu: "qemu", kvm: async () => undefined });
  const pids: number[] = [];
  const onIdentity = async ({ pid }: MachineIdentity) => void pids.push(pid);
  try {
    await use({
      root,
      driver,
      spec,
      program: path,
      requests,
      start: (more = {}, signal) => driver.start({ ...spec, ...more }, onIdentity, silentProgress(signal)),
      nothingLeft: async () => {
        for (const made of [folder, spec.saving]) await assert.rejects(access(made), { code: "ENOENT" });
        for (const pid of pids) await processEnds(pid);
        assert.deepEqual(await processesNaming(spec.disks[1]?.path ?? ""), []);
      },
    });
  } finally {
    for (const pid of pids) {
      signalGroup(pid, "SIGKILL");
      await processEnds(pid);
    }
    await rm(root, { recursive: true });
  }
};

/** The agent behind a machine answers. */
export const greets = async (machine: Machine, epoch: number): Promise<void> => {
  const channel = await machine.openAgentChannel();
  const guest = await connectGuest({ channel, epoch, onEvent: () => undefined }, silentProgress());
  assert.equal(guest.hello.version, 1);
  const found = (await callGuest(guest, { op: "stat", path: "/proc" }, silentProgress())) as { type: string };
  assert.equal(found.type, "dir");
  guest.close();
};
