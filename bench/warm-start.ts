/** `vm run` from a template, against a cold boot of the same image and QEMU alone restoring the least guest that can answer. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Vm } from "../src/contract/vms.ts";
import { Sandbox } from "../src/sdk/sandbox.ts";
import { installFixture } from "../test/support/fixture.ts";
import { bangerBinary, testHost } from "../test/support/host.ts";
import { folderHolds } from "../test/support/wait.ts";
import { modulesForYardstick, yardstickRun } from "./cold-start.ts";
import { type Figure, median, quantile, round, spreadOf } from "./measure.ts";
import { stopwatch } from "./stopwatch.ts";
import { distribution, type Plot, stacks } from "./svg.ts";
import { GOLDEN, SHAPE, warmHost } from "./templates-host.ts";

const ROUNDS = 6;
const RUNS_PER_ROUND = 5;
const MiB = 2 ** 20;
const TWO = ["--vcpu", "2"];

/** What `--timings` printed: ms by stage. */
const stagesIn = (text: string): { what: string; value: number }[] =>
  [...text.matchAll(/^ *(\d+) ms {2}(.+)$/gm)].map(([, ms, what = ""]) => ({ what, value: Number(ms) }));

/** The median of each stage; stages that not every run has are left out. */
const mediansOf = (runs: readonly { what: string; value: number }[][]): { what: string; value: number }[] =>
  (runs[0] ?? []).map(({ what }) => ({
    what,
    value: median(runs.flatMap((stages) => stages.find((stage) => stage.what === what)?.value ?? [])),
  }));

/** Through the client library, from create to the end of `true`. */
const throughLibrary = async (): Promise<number> => {
  const began = performance.now();
  await using sandbox = await Sandbox.create({ image: GOLDEN });
  const { exit } = await sandbox.exec(["true"]);
  if (exit !== 0) throw new Error(`true ended with ${exit}`);
  return performance.now() - began;
};

/** The same where a VM stands ready each time. */
const fromPool = async (): Promise<number[]> => {
  await using pool = await warmHost("templates.pool = 1\n");
  const state = join(pool.host.env.XDG_STATE_HOME, "banger");
  const made = async () => (await readFile(join(state, "daemon.log"), "utf8")).split("vm is ready").length - 1;
  const times: number[] = [];
  // Nobody stands ready for the first.
  await throughLibrary();
  for (let count = 1; count <= ROUNDS * RUNS_PER_ROUND; count++) {
    await folderHolds(state, async () => (await made()) >= count);
    times.push(await throughLibrary());
  }
  return times;
};

export const warmStart = async (): Promise<{ figures: Figure[]; plots: Plot[] }> => {
  await using warmed = await warmHost();
  const { host, ok } = warmed;
  const state = join(host.env.XDG_STATE_HOME, "banger");
  const kernel = join(state, "kernels", "debian-bookworm-cloud");
  const modules = await modulesForYardstick(kernel, join(host.env.HOME, "yardstick-modules"));
  using watch = stopwatch(host.env);
  const command = [bangerBinary, "vm", "run", "--rm", ...SHAPE];
  const once = (...flags: string[]) => watch.time([...command, "--timings", ...flags, "--", "true"]);
  await ok("image", "warm", GOLDEN, ...TWO);
  await once();
  await once(...TWO);
  await ok("vm", "create", "--name", "shape", ...SHAPE);
  const { vcpu, memory } = await host.json<Vm>("vm", "show", "shape");
  await ok("vm", "delete", "shape");
  const [warm, bare, library, two]: [number[], number[], number[], number[]] = [[], [], [], []];
  const stages: { what: string; value: number }[][] = [];
  for (let round = 0; round < ROUNDS; round++) {
    for (let count = 0; count < RUNS_PER_ROUND; count++) {
      const { ms, stderr } = await once();
      warm.push(ms);
      stages.push(stagesIn(stderr));
      library.push(await throughLibrary());
      two.push((await once(...TWO)).ms);
    }
    const told = await yardstickRun({
      kernel,
      modules,
      rootfs: join(state, "images", "debian-bookworm-slim", "rootfs.ext4"),
      memory: memory / MiB,
      cpus: vcpu,
      runs: RUNS_PER_ROUND,
    });
    bare.push(told.restore_first_exit_ms);
  }
  // The same command without templates, on a host of its own.
  await using coldHost = await testHost("templates.enabled = false\n");
  await installFixture(coldHost, [GOLDEN]);
  const cold: number[] = [];
  using coldWatch = stopwatch(coldHost.env);
  for (let count = 0; count < 3; count++) cold.push((await coldWatch.time([...command, "--", "true"])).ms);
  const pooled = await fromPool();
  const [p50, p95] = [median(warm), quantile(warm, 0.95)];
  const baseline = {
    what: `QEMU alone, restore to the first command's exit (median of ${bare.length} medians)`,
    value: round(median(bare)),
  };
  const figures: Figure[] = [
    {
      what: `warm \`vm run --rm -- true\`, Debian with systemd, ${vcpu} vcpu, ${round(memory / MiB / 1024)} GiB (as this machine's size gives it), delete included (95th percentile ${round(p95)} ms)`,
      value: round(p50),
      unit: "ms",
      n: warm.length,
      spread: spreadOf(warm),
      baseline,
      limit: `at most 350 ms, and 1.6 times: ${(p50 / median(bare)).toFixed(2)}`,
      holds: p50 <= 350 && p50 <= 1.6 * median(bare),
    },
    {
      what: `the same with 2 vcpu (95th percentile ${round(quantile(two, 0.95))} ms)`,
      value: round(median(two)),
      unit: "ms",
      n: two.length,
      spread: spreadOf(two),
      limit: "at most 350 ms",
      holds: median(two) <= 350,
    },
    {
      what: `the same through the client library, from create to the command's exit (95th percentile ${round(quantile(library, 0.95))} ms)`,
      value: round(median(library)),
      unit: "ms",
      n: library.length,
      spread: spreadOf(library),
      baseline,
      limit: "at most 250 ms",
      holds: median(library) <= 250,
    },
    {
      what: `the same where one stands ready (\`templates.pool\`; 95th percentile ${round(quantile(pooled, 0.95))} ms)`,
      value: round(median(pooled)),
      unit: "ms",
      n: pooled.length,
      spread: spreadOf(pooled),
      baseline,
      limit: "at most 80 ms",
      holds: median(pooled) <= 80,
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
  const plots: Plot[] = [
    {
      name: "warm-start",
      caption: "Every warm start; QEMU alone by the median of each round of five.",
      svg: distribution("From a template to the end of `true`", [
        { name: "vm run --rm -- true", values: warm },
        { name: "with 2 vcpu", values: two },
        { name: "client library", values: library },
        { name: "one that stood ready", values: pooled },
        { name: "QEMU alone", values: bare },
      ]),
    },
    {
      name: "warm-start-stages",
      caption: "Where the time goes (`vm run --timings`, median of each stage).",
      svg: stacks("vm run --rm -- true, by stages", [{ name: "vm run --rm -- true", stages: mediansOf(stages) }]),
    },
  ];
  return { figures, plots };
};
