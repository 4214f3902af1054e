/** What a VM costs on real KVM, with each VMM that is there: Firecracker (`FIRECRACKER_BIN`, else on the PATH) and QEMU. Nothing where KVM does not work. */
import { readFile } from "node:fs/promises";
import { openClient } from "../src/client/client.ts";
import { Sandbox } from "../src/sdk/sandbox.ts";
import { locateFirecracker } from "../src/vmm/firecracker/release.ts";
import { probeAcceleration } from "../src/vmm/qemu/accel.ts";
import { installFixture } from "../test/support/fixture.ts";
import { type Host, testHost } from "../test/support/host.ts";
import { type Figure, median, round, spreadOf, timed } from "./measure.ts";

const ROUNDS = 20;
const IMAGE = "debian-bookworm-slim";
const SHAPE = { image: IMAGE, vcpu: 1, memory: "256M", network: "none" } as const;

export const onKvm = async (): Promise<Figure[]> => {
  if ((await probeAcceleration("qemu-system-x86_64")).accel !== "kvm") return [];
  const firecracker = await locateFirecracker(process.env.FIRECRACKER_BIN ?? "firecracker").catch(() => undefined);
  return [
    ...(firecracker ? await costs("Firecracker", `vmm = "firecracker"\nfirecracker_bin = "${firecracker}"`, true) : []),
    ...(await costs("QEMU", 'vmm = "qemu"', false)),
  ];
};

/** A host that the client library asks from now on, as of the build that its commands are of: each would replace the other's daemon. */
const machineOf = async (config: string): Promise<Host> => {
  const host = await testHost(config);
  await installFixture(host, [IMAGE]);
  const { build } = await host.json<{ build: string }>("version");
  const started = await host.banger("daemon", "start");
  if (started.status !== 0) throw new Error(started.stderr);
  Object.assign(process.env, host.env, { BANGER_BUILD_ID: build });
  return host;
};

const runTrue = async (sandbox: Sandbox): Promise<void> => {
  const { exit } = await sandbox.exec(["true"]);
  if (exit !== 0) throw new Error(`true ended with ${exit}`);
};

/** From create to the end of `true`, through the client library. */
const starts = async (rounds: number): Promise<number[]> => {
  const times: number[] = [];
  for (let count = 0; count < rounds; count++) {
    const began = performance.now();
    await using sandbox = await Sandbox.create(SHAPE);
    await runTrue(sandbox);
    times.push(performance.now() - began);
  }
  return times;
};

/** Of a process, in MiB, shared pages by its share: all but its largest mapping, which is the guest's memory. */
const besidesGuest = async (pid: number): Promise<number> => {
  const mappings = (await readFile(`/proc/${pid}/smaps`, "utf8")).split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const kilobytes = (mapping: string, name: string) =>
    Number(new RegExp(`^${name}: +(\\d+) kB`, "m").exec(mapping)?.[1] ?? 0);
  const [, ...own] = mappings.sort((a, b) => kilobytes(b, "Size") - kilobytes(a, "Size"));
  return own.reduce((sum, mapping) => sum + kilobytes(mapping, "Pss"), 0) / 1024;
};

/** @param settings of config.toml that ask for it; @param promised the limits are this VMM's */
const costs = async (vmm: string, settings: string, promised: boolean): Promise<Figure[]> => {
  await using _cold = await machineOf(`${settings}\ntemplates.enabled = false\n`);
  await starts(1);
  const cold = await starts(ROUNDS);
  const execs: number[] = [];
  let overhead: number;
  {
    await using sandbox = await Sandbox.create(SHAPE);
    await runTrue(sandbox);
    for (let count = 0; count < ROUNDS; count++) execs.push(await timed(() => runTrue(sandbox)));
    using client = openClient();
    const { pid } = await client.call("vmShow", { vm: sandbox.name }, {});
    if (pid === undefined) throw new Error("the VM has no process");
    overhead = await besidesGuest(pid);
  }
  await using warm = await machineOf(`${settings}\ntemplates.enabled = true\n`);
  const { image, vcpu, memory, network } = SHAPE;
  const flags = ["--vcpu", `${vcpu}`, "--memory", memory, "--net", network];
  const made = await warm.run(["image", "warm", image, ...flags], { timeout: 300_000 });
  if (made.status !== 0) throw new Error(made.stderr);
  await starts(1);
  const restored = await starts(ROUNDS);
  const figure = (what: string, values: readonly number[], unit: string, limit: number): Figure => ({
    what: `${vmm}, ${what}`,
    value: round(median(values)),
    unit,
    n: values.length,
    spread: spreadOf(values),
    limit: promised ? `at most ${limit} ${unit}` : "none",
    holds: !promised || median(values) <= limit,
  });
  return [
    figure("cold boot, from create to the first command's exit", cold, "ms", 250),
    figure("from a template, from create to the first command's exit", restored, "ms", 60),
    figure("exec of `true`", execs, "ms", 5),
    figure("memory of the VMM besides its guest's", [overhead], "MiB", 10),
  ];
};
