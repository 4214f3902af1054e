/** What a run does, decided by its seed alone and not by what happens: the same seed does the same again. */
import { type Random, random } from "./random.ts";

export const verbs = {
  create: 10,
  start: 14,
  stop: 5,
  restart: 4,
  kill: 3,
  delete: 2,
  mark: 20,
  set: 4,
  pause: 3,
  resume: 3,
  sleep: 4,
  snapshot: 4,
  restore: 3,
  forget: 2,
  fork: 3,
  run: 4,
  look: 5,
  fill: 2,
  clock: 2,
} as const;
export type Verb = keyof typeof verbs;

export const faults = {
  none: 10,
  daemon: 4,
  machine: 3,
  cli: 3,
  helper: 2,
  freeze: 2,
  "freeze-daemon": 1,
  /** The host's clock jumps, back or forth. */
  clock: 2,
} as const;
export type FaultKind = keyof typeof faults;

export type Command = {
  verb: Verb /** Index of a VM. */;
  vm: number /** Varies what the verb does. */;
  variant: number;
};
export type Fault = {
  kind: FaultKind;
  /** After the commands of its step have begun, in ms. */
  delay: number;
  /** Chooses among what there is to hit. */
  victim: number;
};
/** Commands that run at the same time, and what hits them meanwhile. */
export type Step = { commands: Command[]; fault: Fault };

const step = (chance: Random, vms: number, first: boolean): Step => {
  const count = first ? 1 : chance.weighted({ "1": 6, "2": 3, "3": 1 });
  const commands = Array.from({ length: Number(count) }, () => ({
    verb: chance.weighted(verbs),
    vm: chance.below(vms),
    variant: chance.below(1000),
  }));
  return {
    commands,
    fault: { kind: chance.weighted(faults), delay: Math.floor(3500 * chance.next() ** 2), victim: chance.below(1000) },
  };
};

/** Steps that hold `commands` commands or a few more. The first ones make every VM. */
export const plan = (seed: number, commands: number, vms: number): Step[] => {
  const chance = random(seed);
  const steps: Step[] = Array.from({ length: vms }, (_, vm) => ({
    commands: [{ verb: "create", vm, variant: chance.below(1000) }],
    fault: { kind: chance.weighted({ none: 3, daemon: 1, cli: 1 }), delay: chance.below(400), victim: 0 },
  }));
  for (let planned = vms; planned < commands; planned += steps.at(-1)?.commands.length ?? 1) {
    steps.push(step(chance, vms, false));
  }
  return steps;
};
