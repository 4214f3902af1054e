/**
 * Chaos in its long form.
 *
 *   node test/chaos/main.ts [--seed N] [--commands N] [--vms N] [--small] [--templates] [--soak N]
 *
 * Without arguments: 300 commands over 5 VMs, 60 more with templates, 60 with all of it on a file system that fills up (as root), and 500
 * rounds of create, exec, delete with templates. `--seed` repeats a run: it decides every command, every fault and its moment. With `--soak` only that.
 */
import { parseArgs } from "node:util";
import { chaos } from "./run.ts";
import { soak } from "./soak.ts";

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    commands: { type: "string" },
    vms: { type: "string", default: "5" },
    small: { type: "boolean", default: false },
    templates: { type: "boolean", default: false },
    soak: { type: "string" },
  },
});
const seed = Number(values.seed ?? Date.now() % 1_000_000);
const vms = Number(values.vms);

const runChaos = async (commands: number, { small = false, templates = false }): Promise<void> => {
  const how = `${small ? ", on a small file system" : ""}${templates ? ", with templates" : ""}`;
  say(`seed ${seed}, ${commands} commands, ${vms} VMs${how}`);
  const done = await chaos({ seed, commands, vms, small, templates, say });
  say(
    `${done.commands} commands with ${done.faults} faults: nothing lost, nothing left; ${done.markers} markers are there`,
  );
};
const runSoak = async (rounds: number, templates: boolean): Promise<void> =>
  say(`each round adds: ${JSON.stringify(await soak({ rounds, templates, say }))}`);

if (values.soak !== undefined) await runSoak(Number(values.soak), values.templates);
else if (values.commands !== undefined || values.small || values.templates)
  await runChaos(Number(values.commands ?? 60), values);
else {
  await runChaos(300, {});
  await runChaos(60, { templates: true });
  // Mounting needs root.
  if (process.getuid?.() === 0) await runChaos(60, { small: true });
  await runSoak(500, true);
}
