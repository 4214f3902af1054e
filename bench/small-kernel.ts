/** Cold boots to the agent with the small kernel of scripts/make-generic-kernel.sh, against Debian's. */
import { access } from "node:fs/promises";
import { join } from "node:path";
import type { Host } from "../test/support/host.ts";
import { type Figure, interleaved, median, round, spreadOf } from "./measure.ts";

const built = join(import.meta.dirname, "..", "build", "manual", "kernel-generic");
const ROUNDS = 7;
/** What was promised: the small one this many times faster. */
const PROMISED = 1.3;

export const smallKernel = async (host: Host): Promise<Figure[]> => {
  const there = await access(built).then(
    () => true,
    () => false,
  );
  if (!there) {
    process.stderr.write(
      `small-kernel: not measured: there is no ${built} (scripts/make-generic-kernel.sh makes it)\n`,
    );
    return [];
  }
  const banger = async (...args: string[]) => {
    const done = await host.banger(...args);
    if (done.status !== 0) throw new Error(done.stderr);
  };
  await banger("kernel", "import", "small", built);
  const names = ["small", "debian-bookworm-cloud"];
  for (const kernel of names)
    await banger(
      ..."vm create --image debian-bookworm-slim --vcpu 1 --memory 512M".split(" "),
      "--name",
      kernel,
      "--kernel",
      kernel,
    );
  // From the call to the agent's answer; what a first boot makes is made before.
  const boot = async (name: string) => await banger("vm", "start", name);
  for (const name of names) {
    await boot(name);
    await banger("vm", "kill", name);
  }
  const times = names.map((): number[] => []);
  for (let index = 0; index < ROUNDS; index++) {
    for (const [at, name] of names.entries()) {
      const [[time = Number.NaN] = []] = await interleaved(1, [() => boot(name)]);
      times[at]?.push(time);
      await banger("vm", "kill", name);
    }
  }
  for (const name of names) await banger("vm", "delete", name);
  const [small = [], debian = []] = times;
  const ratio = median(debian) / median(small);
  return [
    {
      what: "start to agent ready with the small kernel",
      value: round(median(small)),
      unit: "ms",
      n: ROUNDS,
      spread: spreadOf(small),
      baseline: { what: "Debian's cloud kernel", value: round(median(debian)) },
      limit: `at least ${PROMISED} times faster; here ${ratio.toFixed(2)}`,
      holds: ratio >= PROMISED,
    },
  ];
};
