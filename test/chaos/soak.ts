/** The same again and again: what a daemon holds must not grow with what it has done. */
import { readdir, readFile } from "node:fs/promises";
import { installFixture } from "../support/fixture.ts";
import { testHost } from "../support/host.ts";

const SLIM = "debian-bookworm-slim";
const GROUP = 5;

type Sample = { descriptors: number; memory: number; processes: number; disk: number };
export type Slopes = Record<keyof Sample, number> & {
  rounds: number;
  /** In MiB, after the first rounds and in the end. */
  memoryFrom: number;
  memoryTo: number;
};

/** By how much a figure grows each round: the slope of the line nearest to all samples. */
export const slope = (values: readonly number[]): number => {
  const middle = (values.length - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  let above = 0;
  let below = 0;
  for (const [at, value] of values.entries()) {
    above += (at - middle) * (value - mean);
    below += (at - middle) ** 2;
  }
  return below === 0 ? 0 : above / below;
};

export type SoakOptions = {
  rounds: number;
  /** VMs start from a template, as they do by default; otherwise each boots. */
  templates: boolean;
  /** Is told how it goes. */
  say(line: string): void;
};

/** Creates, uses and deletes a VM so many times. */
export const soak = async ({ rounds, templates, say }: SoakOptions): Promise<Slopes> => {
  await using host = await testHost(
    `log_level = "warn"\ndefault_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "128M"\ndisk_size = "1G"\n[templates]\nenabled = ${templates}\n`,
  );
  await installFixture(host, [SLIM]);
  const ok = async (...args: string[]): Promise<void> => {
    const done = await host.banger(...args);
    if (done.status !== 0) throw new Error(`banger ${args.join(" ")}: ${done.stderr}`);
  };
  const sample = async (): Promise<Sample> => {
    const pid = await host.daemonPid();
    const status = await readFile(`/proc/${pid}/status`, "utf8");
    const du = await host.tool(
      "du",
      "-sk",
      "--exclude=daemon.log*",
      `${host.env.XDG_STATE_HOME}/banger`,
      host.env.XDG_RUNTIME_DIR,
    );
    return {
      descriptors: (await readdir(`/proc/${pid}/fd`)).length,
      memory: Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]),
      processes: (await host.processes()).length,
      disk: du.stdout.split("\n").reduce((sum, line) => sum + (Number.parseInt(line, 10) || 0), 0),
    };
  };
  if (templates) await ok("image", "warm");
  const samples: Sample[] = [];
  for (let round = 0; round < rounds; round++) {
    const name = `soak-${round}`;
    await ok("vm", "create", "--name", name);
    await ok("vm", "start", name);
    await ok("vm", "exec", name, "--", "sh", "-c", "echo $$ >/root/x; cat /root/x");
    await ok("vm", "delete", name);
    if (round % GROUP !== GROUP - 1) continue;
    samples.push(await sample());
    say(`${round + 1}/${rounds} ${JSON.stringify(samples.at(-1))}`);
  }
  // The first rounds fill caches and grow the heap to its working size.
  const steady = samples.slice(Math.floor(samples.length / 4));
  const per = (key: keyof Sample) => slope(steady.map((one) => one[key])) / GROUP;
  return {
    rounds,
    descriptors: per("descriptors"),
    memory: per("memory"),
    processes: per("processes"),
    disk: per("disk"),
    memoryFrom: (steady[0]?.memory ?? 0) / 1024,
    memoryTo: (steady.at(-1)?.memory ?? 0) / 1024,
  };
};
