/** A cold `vm run` of an image without init, against QEMU alone with the least guest that can answer. */
import { execFile } from "node:child_process";
import { access, copyFile, mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Host } from "../test/support/host.ts";
import { type Figure, median, round, spreadOf, timed } from "./measure.ts";

const run = promisify(execFile);
const yardstick = join(import.meta.dirname, "..", "..", "shared", "baseline", "bare_vmm.py");
const image = "debian-bookworm-slim";
/** The yardstick boots 3 times a call. */
const COLD_PER_CALL = 3;
const CALLS = 5;

/** The order in which the yardstick loads its modules: it takes NAME.ko of a folder for each. */
const yardstickOrder = [
  "virtio",
  "virtio_ring",
  "virtio_mmio",
  "virtio_blk",
  "failover",
  "net_failover",
  "virtio_net",
  "overlay",
  "virtio_console",
  "virtio-rng",
];

/**
 * The kernel's boot modules under the yardstick's names, in the order this kernel needs. (Since some 6.1 update virtio.ko needs virtio_ring.ko, and
 * the yardstick loads them the other way round; a module is what is in the file, whatever its name.)
 */
export const modulesForYardstick = async (kernel: string, folder: string): Promise<string> => {
  // A guest of QEMU's has no vsock device and does not load its modules either.
  const listed = (await readFile(join(kernel, "boot-modules", "order"), "utf8")).trim().split("\n");
  const order = listed.filter((name) => !name.includes("vsock"));
  if (order.length !== yardstickOrder.length)
    throw new Error(`the yardstick loads ${yardstickOrder.length} modules, this kernel needs ${order.length}`);
  await mkdir(folder);
  for (const [index, name] of order.entries())
    await copyFile(join(kernel, "boot-modules", name), join(folder, `${yardstickOrder[index]}.ko`));
  return folder;
};

/** Medians of the bare VMM, in ms. */
export type Bare = { cold_ready_ms: number; exec_true_ms: number; restore_first_exit_ms: number };

/** @param options.memory in MiB */
export const yardstickRun = async (options: {
  kernel: string;
  modules: string;
  rootfs: string;
  memory: number;
  cpus: number;
  runs: number;
}): Promise<Bare> => {
  const { stdout } = await run("timeout", [
    "300",
    "python3",
    yardstick,
    "--kernel",
    join(options.kernel, "vmlinux"),
    "--modules",
    options.modules,
    "--rootfs",
    options.rootfs,
    "--mem",
    String(options.memory),
    "--cpus",
    String(options.cpus),
    "--runs",
    String(options.runs),
    "--append",
    "mitigations=off nokaslr",
  ]);
  return JSON.parse(stdout) as Bare;
};

export const coldStart = async (host: Host): Promise<Figure[]> => {
  await access(yardstick);
  const state = join(host.env.XDG_STATE_HOME, "banger");
  const kernel = join(state, "kernels", "debian-bookworm-cloud");
  const modules = await modulesForYardstick(kernel, join(host.env.HOME, "yardstick-modules"));
  const bareReady: number[] = [];
  const bareExec: number[] = [];
  const ours: number[] = [];
  const runOnce = async () => {
    const done = await host.banger(
      "vm",
      "run",
      "--rm",
      "--image",
      image,
      "--vcpu",
      "1",
      "--memory",
      "512M",
      "--",
      "true",
    );
    if (done.status !== 0) throw new Error(done.stderr);
  };
  await runOnce();
  for (let call = 0; call < CALLS; call++) {
    const bare = await yardstickRun({
      kernel,
      modules,
      rootfs: join(state, "images", image, "rootfs.ext4"),
      memory: 512,
      cpus: 1,
      runs: COLD_PER_CALL,
    });
    bareReady.push(bare.cold_ready_ms);
    bareExec.push(bare.exec_true_ms);
    for (let i = 0; i < COLD_PER_CALL; i++) ours.push(await timed(runOnce));
  }
  const bare = median(bareReady) + median(bareExec);
  const ratio = median(ours) / bare;
  return [
    {
      what: "cold `vm run --rm -- true`, no systemd, CLI start and delete included",
      value: round(median(ours)),
      unit: "ms",
      n: ours.length,
      spread: spreadOf(ours),
      baseline: {
        what: `QEMU alone to its guest's first exit status (median of ${CALLS} medians of ${COLD_PER_CALL})`,
        value: round(bare),
      },
      limit: `at most 1.15 times: ${ratio.toFixed(2)}`,
      holds: ratio <= 1.15,
    },
  ];
};
