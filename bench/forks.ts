/** Many copies of one running VM: until all answer, what each weighs, and whether any of a hundred fails. */
import { processUse } from "../src/host/proc.ts";
import type { Vm, VmStats } from "../src/contract/vms.ts";
import { type Figure, median, quantile, round, spreadOf } from "./measure.ts";
import { distribution, type Plot } from "./svg.ts";
import { SHAPE, warmHost } from "./templates-host.ts";

const FORKS = 20;
const ROUNDS = 3;
const MANY = 100;
/** Commands at once in many forks: each waits for the others' CPUs anyway. */
const AT_ONCE = 10;
const MiB = 2 ** 20;

/** Memory of each VM's process in MiB: shared pages by its share. */
const sharesOf = async (vms: readonly Vm[]): Promise<number[]> => {
  const uses = await Promise.all(vms.map(({ pid }) => (pid === undefined ? undefined : processUse(pid))));
  return uses.flatMap((use) => (use?.pss === undefined ? [] : use.pss / MiB));
};

export const forks = async (): Promise<{ figures: Figure[]; plots: Plot[] }> => {
  await using warm = await warmHost();
  const { client, host, ok, run } = warm;
  await ok("vm", "run", "-d", "--name", "base", ...SHAPE);
  await run("base");
  const all: number[] = [];
  const each: number[] = [];
  const memory: number[] = [];
  const settled: number[] = [];
  const disk: number[] = [];
  for (let count = 0; count < ROUNDS; count++) {
    const began = performance.now();
    const { vms } = await client.operation("vmFork", { vm: "base" }, { count: FORKS });
    await Promise.all(
      vms.map(async ({ id }) => {
        await run(id);
        each.push(performance.now() - began);
      }),
    );
    all.push(performance.now() - began);
    memory.push(...(await sharesOf(vms)));
    const stats = await host.json<VmStats[]>("vm", "stats");
    for (const { name, disk: used } of stats) if (name !== "base") disk.push(used.used / MiB);
    // Before a second command its services go on.
    await Promise.all(vms.map(({ id }) => run(id)));
    settled.push(...(await sharesOf(vms)));
    await ok("vm", "delete", ...vms.map(({ name }) => name));
  }
  const { vms } = await client.operation("vmFork", { vm: "base" }, { count: MANY });
  const waiting = vms.map(({ id }) => id);
  let failed = 0;
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (let id = waiting.pop(); id !== undefined; id = waiting.pop())
        await run(id).catch(() => {
          failed++;
        });
    }),
  );
  await ok("vm", "delete", ...vms.map(({ name }) => name), "base");
  const figures: Figure[] = [
    {
      what: `${FORKS} forks of a running Debian with systemd, until all have run a command (95th percentile of one fork ${round(quantile(each, 0.95))} ms)`,
      value: round(median(all)),
      unit: "ms",
      n: all.length,
      spread: spreadOf(each),
      limit: "at most 3500 ms",
      holds: median(all) <= 3500,
    },
    {
      what: "a fork's memory on the host, shared pages by its share",
      value: round(median(memory)),
      unit: "MiB",
      n: memory.length,
      spread: spreadOf(memory),
      limit: "at most 45 MiB",
      holds: median(memory) <= 45,
    },
    {
      what: "the same after a second command, its services at work",
      value: round(median(settled)),
      unit: "MiB",
      n: settled.length,
      spread: spreadOf(settled),
      limit: "none",
      holds: true,
    },
    {
      what: "a fork's disk on the host",
      value: round(median(disk)),
      unit: "MiB",
      n: disk.length,
      spread: spreadOf(disk),
      limit: "at most 5 MiB",
      holds: median(disk) <= 5,
    },
    {
      what: `forks of ${MANY} that failed`,
      value: failed,
      unit: "",
      n: MANY,
      limit: "none",
      holds: failed === 0,
    },
  ];
  const caption = `When each of ${FORKS} forks had run its first command, from the request for all of them (${ROUNDS} rounds).`;
  const svg = distribution(`${FORKS} forks: first command done after`, [{ name: "one fork", values: each }]);
  return { figures, plots: [{ name: "forks", caption, svg }] };
};
