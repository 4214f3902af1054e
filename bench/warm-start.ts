/** `vm run` from a template, against a cold boot of the same image and QEMU alone restoring the least guest that can answer. */
import { join } from "node:path";
import { type Host, testHost } from "../test/support/host.ts";
import { installFixture } from "../test/support/fixture.ts";
import { modulesForYardstick, yardstickRun } from "./cold-start.ts";
import { type Figure, median, quantile, round, spreadOf, timed } from "./measure.ts";

const image = "debian-bookworm";
const shape = ["--image", image, "--vcpu", "2", "--memory", "1G"];
const ROUNDS = 6;
const RUNS_PER_ROUND = 5;

export const warmStart = async (_host: Host): Promise<Figure[]> => {
  await using host = await testHost("templates.enabled = true\n");
  await installFixture(host, [image, "debian-bookworm-slim"]);
  const state = join(host.env.XDG_STATE_HOME, "banger");
  const kernel = join(state, "kernels", "debian-bookworm-cloud");
  const modules = await modulesForYardstick(kernel, join(host.env.HOME, "yardstick-modules"));
  const ok = async (...args: string[]) => {
    const done = await host.banger(...args);
    if (done.status !== 0) throw new Error(done.stderr);
  };
  const once = () => ok("vm", "run", "--rm", ...shape, "--", "true");
  await ok("image", "warm", image, "--vcpu", "2", "--memory", "1G");
  await once();
  const warm: number[] = [];
  const bare: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    for (let count = 0; count < RUNS_PER_ROUND; count++) warm.push(await timed(once));
    const told = await yardstickRun({
      kernel,
      modules,
      rootfs: join(state, "images", "debian-bookworm-slim", "rootfs.ext4"),
      memory: 1024,
      cpus: 2,
      runs: RUNS_PER_ROUND,
    });
    bare.push(told.restore_first_exit_ms);
  }
  // The same command without templates, on a host of its own.
  await using coldHost = await testHost("templates.enabled = false\n");
  await installFixture(coldHost, [image]);
  const cold: number[] = [];
  for (let count = 0; count < 3; count++) {
    cold.push(
      await timed(async () => {
        const done = await coldHost.banger("vm", "run", "--rm", ...shape, "--", "true");
        if (done.status !== 0) throw new Error(done.stderr);
      }),
    );
  }
  const [p50, p95] = [median(warm), quantile(warm, 0.95)];
  return [
    {
      what: `warm \`vm run --rm -- true\`, Debian with systemd, 2 vcpu, 1 GiB, delete included (95th percentile ${round(p95)} ms)`,
      value: round(p50),
      unit: "ms",
      n: warm.length,
      spread: spreadOf(warm),
      baseline: {
        what: `QEMU alone, restore to the first command's exit (median of ${bare.length} medians)`,
        value: round(median(bare)),
      },
      limit: `at most 350 ms, and 1.6 times: ${round((p50 / median(bare)) * 10) / 10}`,
      holds: p50 <= 350 && p50 <= 1.6 * median(bare),
    },
    {
      what: `the same, cold: ${round(median(cold))} ms, is so much slower`,
      value: round(median(cold) / p50),
      unit: "times",
      n: cold.length,
      limit: "at least 10 times",
      holds: median(cold) >= 10 * p50,
    },
  ];
};
