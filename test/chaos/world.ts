/** A host under test, what was promised about its VMs, and the commands that are given there. */
import type { ChildProcess } from "node:child_process";
import type { Vm } from "../../src/contract/vms.ts";
import { type Done, finish, type Host } from "../support/host.ts";
import type { Command } from "./plan.ts";

/** A command that takes longer has hung, unless something that it waits for stands still by design. In ms. */
const COMMAND_LIMIT = 150_000;
/** A guest whose disk is full stands still, and so does who waits for it. In ms. */
const STUCK_LIMIT = 20_000;

/** What is known of a VM for certain. */
export type Promised = {
  /** A create came back with success, and nothing that may delete it was asked since. */
  exists: boolean;
  /** Numbers of the markers whose fsync came back with success. */
  markers: Set<number>;
};

export type World = {
  host: Host;
  names: readonly string[];
  promises: Map<string, Promised>;
  /** Disks are on a file system that may be full. */
  small: boolean;
  /** Commands that are under way. */
  running: Set<ChildProcess>;
  /** One line for each thing that happened. */
  say(line: string): void;
};

export type Result = { words: readonly string[]; done: Done | undefined };

const freshPromise = (): Promised => ({ exists: false, markers: new Set() });

export const promiseOf = (world: World, name: string): Promised => {
  const found = world.promises.get(name) ?? freshPromise();
  world.promises.set(name, found);
  return found;
};

/** Runs a command; killed after its limit. */
export const give = async (world: World, words: readonly string[], limit = COMMAND_LIMIT): Promise<Done> => {
  const child = world.host.start(words);
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

const wordsOf = ({ verb, variant }: Command, name: string): string[] => {
  switch (verb) {
    case "create":
      return [
        "vm",
        "create",
        "--name",
        name,
        ...(variant % 4 === 0 ? ["--net", "none"] : []),
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
  const name = world.names[command.vm] ?? "";
  const promised = promiseOf(world, name);
  const { verb } = command;
  // From here on nobody can count on it.
  if (verb === "delete") world.promises.set(name, freshPromise());
  const marker = ++lastMarker;
  const words =
    verb === "mark"
      ? ["vm", "exec", name, "--", "sh", "-c", markScript(marker, 1 + (command.variant % 64))]
      : wordsOf(command, name);
  // What is not running has nothing to write to.
  if (verb === "mark" && command.variant % 4 > 0) await give(world, ["vm", "start", name]);
  const guestWaits = world.small && ["mark", "fill", "clock", "look"].includes(verb);
  const done = await give(world, words, guestWaits ? STUCK_LIMIT : COMMAND_LIMIT);
  // A delete that was asked meanwhile has made a new promise of it.
  if (done.status === 0 && promiseOf(world, name) === promised) {
    if (verb === "create") promised.exists = true;
    if (verb === "mark") promised.markers.add(marker);
  }
  return { words, done };
};

export const list = async (world: World): Promise<Vm[]> => {
  const done = await give(world, ["vm", "list", "--json"]);
  if (done.status !== 0) throw new Error(`vm list failed: ${done.stderr}`);
  return JSON.parse(done.stdout) as Vm[];
};
