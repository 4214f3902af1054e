/**
 * Measures every figure that the README claims, each against its baseline in the same run, and writes docs/benchmarks.md.
 *
 *   node bench/main.ts [NAME…]     only these: start-up cold-start warm-start exec copy convert firecracker idle completion many stop small-kernel (and nothing is written)
 */
import { execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { availableParallelism, release, totalmem } from "node:os";
import { join } from "node:path";
import { installFixture } from "../test/support/fixture.ts";
import { type Host, testHost } from "../test/support/host.ts";
import { coldStart } from "./cold-start.ts";
import { completion } from "./completion.ts";
import { convert } from "./convert.ts";
import { copySpeed } from "./copy.ts";
import { execLatency } from "./exec.ts";
import { firecrackerOverhead } from "./firecracker.ts";
import { idleDaemon } from "./idle.ts";
import { manyVms } from "./many.ts";
import { type Figure, round } from "./measure.ts";
import { smallKernel } from "./small-kernel.ts";
import { startUp } from "./start-up.ts";
import { stopTime } from "./stop.ts";
import { warmStart } from "./warm-start.ts";

const benches: Record<string, (host: Host) => Promise<Figure[]>> = {
  "start-up": startUp,
  "cold-start": coldStart,
  "warm-start": warmStart,
  exec: execLatency,
  copy: copySpeed,
  convert,
  firecracker: firecrackerOverhead,
  idle: idleDaemon,
  completion,
  many: manyVms,
  stop: stopTime,
  "small-kernel": smallKernel,
};

const row = ({ what, value, unit, n, spread, baseline, limit, holds }: Figure): string => {
  const range = spread ? ` (${round(spread[0])}–${round(spread[1])})` : "";
  const against = baseline ? `${baseline.what}: ${baseline.value} ${unit}` : "";
  return `| ${what} | **${value} ${unit}**${range} | ${n} | ${against} | ${limit} | ${holds ? "yes" : "**no**"} |`;
};

const page = (rows: readonly string[], accel: string): string => `# Benchmarks

Written by \`make bench\`; run it to repeat them. Every figure is the median of n measurements (10th to 90th percentile in brackets) and stands beside its
baseline, measured in turn with it in the same run: absolute times move with the machine, ratios less.

Machine: ${availableParallelism()} CPUs, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, ${execFileSync("qemu-system-x86_64", ["--version"], { encoding: "utf8" }).split("\n")[0]}, ${accel}.

| what | measured | n | baseline | promised | holds |
|---|---|---|---|---|---|
${rows.join("\n")}

The bare VMM is QEMU started by a script, with a static C program as init, a read-only root and a RAM overlay: same kernel, root file system, memory and
kernel arguments. \`scp\` goes through banger's ssh_config, that is over the same guest channel. Templates are off where a figure does not say otherwise.
`;

const wanted = process.argv.slice(2);
const rows: string[] = [];
let accel = "";
{
  await using host = await testHost();
  await installFixture(host, ["debian-bookworm-slim", "debian-bookworm"]);
  accel =
    (await host.json<{ name: string; message: string }[]>("doctor")).find(({ name }) => name === "kvm")?.message ?? "";
  for (const [name, bench] of Object.entries(benches)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    for (const figure of await bench(host)) {
      rows.push(row(figure));
      process.stdout.write(`${row(figure)}\n`);
    }
  }
}
if (wanted.length === 0) await writeFile(join(import.meta.dirname, "..", "docs", "benchmarks.md"), page(rows, accel));
