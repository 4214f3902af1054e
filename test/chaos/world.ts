/** A host under test, what was promised about its VMs, and the commands that are given there. */
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import type { Vm } from "../../src/contract/vms.ts";
import { type Done, finish, type Host } from "../support/host.ts";
import type { Command } from "./plan.ts";

/** A command that takes longer has hung, unless something that it waits for stands still by design. In ms. */
const COMMAND_LIMIT = 150_000;
/** A guest whose disk is full stands still, and so does who waits for it. In ms. */
const STUCK_LIMIT = 20_000;

/** What is known of a VM, or of a snapshot, for certain. */
export type Promised = {
  /** What makes it came back with success, and nothing that may delete it was asked since. */
  exists: boolean;
  /** Numbers of the markers in it whose fsync came back with success. */
  markers: Set<number>;
};

export type World = {
  host: Host;
  names: readonly string[];
  promises: Map<string, Promised>;
  snapshots: Map<string, Promised>;
  /** Forks end with their step. */
  forks: Map<string, Promised>;
  /** Disks are on a file system that may be full. */
  small: boolean;
  /** Commands that are under way. */
  running: Set<ChildProcess>;
  /** One line for each thing that happened. */
  say(line: string): void;
};

export type Result = { words: readonly string[]; done: Done | undefined };

const freshPromise = (): Promised => ({ exists: false, markers: new Set() });

/** What was promised of this name; kept, so that what is learned of it later counts. */
export const promiseOf = (promises: Map<string, Promised>, name: string): Promised => {
  const found = promises.get(name) ?? freshPromise();
  promises.set(name, found);
  return found;
};

/** By how many milliseconds the clock of banger's programs on this host is off. */
export const clockFile = ({ env }: Host): string => join(env.HOME, "clock");
const clockShim = join(import.meta.dirname, "clock.cjs");

/** Runs a command; killed after its limit. */
export const give = async (world: World, words: readonly string[], limit = COMMAND_LIMIT): Promise<Done> => {
  const child = world.host.start(words, {
    env: { NODE_OPTIONS: `--require ${clockShim}`, BANGER_CHAOS_CLOCK: clockFile(world.host) },
  });
  world.running.add(child);
  try {
    return await finish(child, { timeout: limit });
  } finally {
    world.running.delete(child);
  }
};

let lastMarker = 0;

/** A file that the guest has fsynced, with its folder. */
const markScript = (marker: number, kilobytes: number): string =>
  `mkdir -p /root/m && head -c ${kilobytes}k /dev/zero | tr '\\0' ${marker % 10} >/root/m/${marker} && sync /root/m/${marker} /root/m`;

/** Few, so that commands meet at them. */
const snapshotName = (variant: number): string => `snap-${variant % 3}`;
/** What names of forks begin with. */
export const FORK = "fork-";

const wordsOf = ({ verb, variant }: Command, name: string): string[] => {
  switch (verb) {
    case "create":
      return [
        "vm",
        "create",
        "--name",
        name,
        ...(variant % 4 === 0 ? ["--net", "none"] : []),
        // Stopped when the clock steps forward.
        ...(variant % 5 === 0 ? ["--auto-stop", "1h"] : []),
        "--label",
        `v=${variant}`,
      ];
    case "set":
      return variant % 2 === 0
        ? ["vm", "set", "--label", `v=${variant}`, "--memory", `${128 + (variant % 3) * 32}M`, name]
        : ["vm", "set", "--disk-size", `${1024 + variant * 4}M`, name];
    case "run":
      return ["vm", "run", "--rm", "--", "sh", "-c", `exit ${variant % 100}`];
    case "look":
      return (
        [
          ["vm", "list"],
          ["vm", "stats"],
          ["vm", "show", name],
          ["vm", "logs", name],
          ["vm", "ports", name],
        ][variant % 5] ?? []
      );
    case "snapshot":
      return ["vm", "snapshot", "--as", snapshotName(variant), name];
    case "restore":
      return ["vm", "restore", "--name", name, snapshotName(variant)];
    case "forget":
      return ["snapshot", "delete", snapshotName(variant)];
    case "fork":
      return ["vm", "fork", "-n", String(1 + (variant % 2)), "--prefix", `${FORK}${name}`, name];
    case "clock":
      return ["vm", "exec", name, "--", "date", "-s", `@${1_500_000_000 + variant * 1_000_000}`];
    case "fill":
      return ["vm", "exec", name, "--", "sh", "-c", `head -c ${8 + (variant % 16)}M /dev/urandom >/root/fill; sync`];
    default:
      return ["vm", verb, ...(verb === "stop" && variant % 3 === 0 ? ["-t", "2s"] : []), name];
  }
};

/** Gives a command and keeps the books about what it promised. */
export const act = async (world: World, command: Command): Promise<Result> => {
  const { verb, variant } = command;
  const name = world.names[command.vm] ?? "";
  const marker = ++lastMarker;
  const words =
    verb === "mark"
      ? ["vm", "exec", name, "--", "sh", "-c", markScript(marker, 1 + (variant % 64))]
      : wordsOf(command, name);
  // From here on, and until it has come back, nobody can count on what it deletes.
  const giveUp = () => {
    if (verb === "delete") world.promises.set(name, freshPromise());
    if (verb === "forget") world.snapshots.set(snapshotName(variant), freshPromise());
  };
  giveUp();
  const vm = promiseOf(world.promises, name);
  const snapshot = promiseOf(world.snapshots, snapshotName(variant));
  const markers = new Set(verb === "restore" ? snapshot.markers : vm.markers);
  // What is not running has nothing to write to.
  if (verb === "mark" && variant % 4 > 0) await give(world, ["vm", "start", name]);
  const guestWaits = world.small && ["mark", "fill", "clock", "look"].includes(verb);
  const done = await give(world, words, guestWaits ? STUCK_LIMIT : COMMAND_LIMIT);
  giveUp();
  // A promise that was given up meanwhile is another one now.
  const holds = done.status === 0 && promiseOf(world.promises, name) === vm;
  if (holds && (verb === "create" || verb === "restore")) Object.assign(vm, { exists: true, markers });
  if (holds && verb === "mark") vm.markers.add(marker);
  if (holds && verb === "snapshot" && promiseOf(world.snapshots, snapshotName(variant)) === snapshot)
    Object.assign(snapshot, { exists: true, markers });
  if (holds && verb === "fork")
    for (const fork of done.stdout.trim().split("\n")) world.forks.set(fork, { exists: true, markers });
  return { words, done };
};

export const list = async (world: World): Promise<Vm[]> => {
  const done = await give(world, ["vm", "list", "--json"]);
  if (done.status !== 0) throw new Error(`vm list failed: ${done.stderr}`);
  return JSON.parse(done.stdout) as Vm[];
};
