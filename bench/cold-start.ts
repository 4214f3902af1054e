/** A cold `vm run` of an image without init, against QEMU alone with the least guest that can answer. */
import { execFile } from "node:child_process";
import { access } from "node:fs/promises";
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

export const coldStart = async (host: Host): Promise<Figure[]> => {
  await access(yardstick);
  const state = join(host.env.XDG_STATE_HOME, "banger");
  const kernel = join(state, "kernels", "debian-bookworm-cloud");
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
    const { stdout } = await run("python3", [
      yardstick,
      "--kernel",
      join(kernel, "vmlinux"),
      "--modules",
      join(kernel, "boot-modules"),
      "--rootfs",
      join(state, "images", image, "rootfs.ext4"),
      "--mem",
      "512",
      "--cpus",
      "1",
      "--runs",
      String(COLD_PER_CALL),
      "--append",
      "mitigations=off nokaslr",
    ]);
    const bare = JSON.parse(stdout) as { cold_ready_ms: number; exec_true_ms: number };
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
