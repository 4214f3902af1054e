/**
 * Measures every figure that the README claims, each against its baseline in the same run, and writes docs/benchmarks.md.
 *
 *   node bench/main.ts [NAME…]     only these, by the names below; the others keep what was written before
 */
import { execFileSync } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
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
import { forks } from "./forks.ts";
import { idleDaemon } from "./idle.ts";
import { onKvm } from "./kvm.ts";
import { manyVms } from "./many.ts";
import type { Figure } from "./measure.ts";
import { mergePage, section } from "./page.ts";
import { publishedPort } from "./publish.ts";
import { smallKernel } from "./small-kernel.ts";
import { snapshot } from "./snapshot.ts";
import { startUp } from "./start-up.ts";
import { stopTime } from "./stop.ts";
import type { Plot } from "./svg.ts";
import { warmStart } from "./warm-start.ts";
import { workspaceSpeed } from "./workspace.ts";

/** Figures alone, or with plots of them. */
type Bench = (host: Host) => Promise<Figure[] | { figures: Figure[]; plots: Plot[] }>;

const benches: Record<string, Bench> = {
  "start-up": startUp,
  // Before those that fill this process's memory: starting others from it takes longer then.
  firecracker: firecrackerOverhead,
  "cold-start": coldStart,
  "warm-start": warmStart,
  forks,
  snapshot,
  exec: execLatency,
  copy: copySpeed,
  workspace: workspaceSpeed,
  convert,
  kvm: onKvm,
  idle: idleDaemon,
  completion,
  many: manyVms,
  stop: stopTime,
  publish: publishedPort,
  "small-kernel": smallKernel,
};

const plotFolder = join(import.meta.dirname, "..", "docs", "benchmarks");
const page = join(import.meta.dirname, "..", "docs", "benchmarks.md");
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !Object.hasOwn(benches, name));
if (unknown.length > 0) throw new Error(`no bench ${unknown.join(", ")}; there are: ${Object.keys(benches).join(" ")}`);
const fresh = new Map<string, string>();
{
  await using host = await testHost();
  await installFixture(host, ["debian-bookworm-slim", "debian-bookworm"]);
  const findings = await host.json<{ name: string; message: string }[]>("doctor");
  const accel = findings.find(({ name }) => name === "kvm")?.message ?? "";
  const qemu = execFileSync("qemu-system-x86_64", ["--version"], { encoding: "utf8" }).split("\n")[0];
  const machine = `${availableParallelism()} CPUs, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release().split(".").slice(0, 2).join(".")}, ${qemu}, ${accel}`;
  const where = `Measured ${new Date().toISOString().slice(0, 10)} with ${machine}`;
  for (const [name, bench] of Object.entries(benches)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    const measured = await bench(host);
    const { figures, plots } = Array.isArray(measured) ? { figures: measured, plots: [] } : measured;
    const text = section(name, { figures, plots }, where);
    await mkdir(plotFolder, { recursive: true });
    for (const plot of plots) await writeFile(join(plotFolder, `${plot.name}.svg`), plot.svg);
    fresh.set(name, text);
    process.stdout.write(`${text}\n`);
  }
}
await writeFile(page, mergePage(await readFile(page, "utf8").catch(() => ""), fresh, Object.keys(benches)));
