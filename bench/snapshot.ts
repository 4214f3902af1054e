/** How long a VM stands still for a snapshot, and how long a sleeping one takes to wake. */
import { type Figure, median, quantile, round, spreadOf, timed } from "./measure.ts";
import { distribution, type Plot } from "./svg.ts";
import { SHAPE, warmHost } from "./templates-host.ts";

const TIMES = 30;
/** Bytes that a disk is to take in a millisecond. */
const RATE = 1e6;

export const snapshot = async (): Promise<{ figures: Figure[]; plots: Plot[] }> => {
  await using warm = await warmHost();
  const { client, ok, run } = warm;
  await ok("vm", "run", "-d", "--name", "box", ...SHAPE);
  await run("box");
  const pauses: number[] = [];
  const allowed: number[] = [];
  for (let count = 0; count < TIMES; count++) {
    const taken = await client.operation("vmSnapshot", { vm: "box" }, { name: "one" });
    pauses.push(taken.pause);
    allowed.push(50 + taken.memoryWritten / RATE);
    await client.operation("snapshotDelete", { name: "one" }, {});
  }
  const wakes: number[] = [];
  for (let count = 0; count < TIMES; count++) {
    await client.operation("vmSleep", { vm: "box" }, {});
    wakes.push(await timed(() => run("box")));
  }
  await ok("vm", "delete", "box");
  const over = pauses.map((pause, index) => pause - (allowed[index] ?? 0));
  const figures: Figure[] = [
    {
      what: `a VM stands still for its snapshot (95th percentile ${round(quantile(pauses, 0.95))} ms)`,
      value: round(median(pauses)),
      unit: "ms",
      n: pauses.length,
      spread: spreadOf(pauses),
      baseline: { what: "50 ms and its changed memory at 1 GB/s", value: round(median(allowed)) },
      limit: "at most that",
      holds: median(over) <= 0,
    },
    {
      what: `a sleeping Debian with systemd wakes and runs a command, through the client library (95th percentile ${round(quantile(wakes, 0.95))} ms)`,
      value: round(median(wakes)),
      unit: "ms",
      n: wakes.length,
      spread: spreadOf(wakes),
      limit: "at most 400 ms",
      holds: median(wakes) <= 400,
    },
  ];
  const svg = distribution("Snapshot and wake", [
    { name: "pause of a snapshot", values: pauses },
    { name: "wake, first command", values: wakes },
  ]);
  return { figures, plots: [{ name: "snapshot", caption: "Every measurement of the table above.", svg }] };
};
