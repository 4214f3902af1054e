/** What hits a host in the middle of its work. */
import { rename, writeFile } from "node:fs/promises";
import type { Fault } from "./plan.ts";
import { clockFile, type World } from "./world.ts";

const signal = (pid: number | undefined, name: NodeJS.Signals): void => {
  if (pid === undefined) return;
  try {
    process.kill(pid, name);
  } catch (error) {
    // It has ended by itself.
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
};

const patterns = {
  daemon: /bangerd/,
  machine: /qemu-system/,
  helper: /--filter-network|passt/,
} as const;

const victims = async (world: World, kind: keyof typeof patterns): Promise<number[]> =>
  (await world.host.processes()).filter(({ command }) => patterns[kind].test(command)).map(({ pid }) => pid);

const choose = <T>(from: readonly T[], victim: number): T | undefined => from[victim % Math.max(1, from.length)];

/** Processes stand still for so long, in ms. */
const FREEZE = 1500;
/** Steps of the host's clock are of up to so long, back or forth, in ms. */
const LONGEST_STEP = 400 * 24 * 3600_000;

/** A file that is read at any moment is changed in one step. */
const setClock = async (world: World, offset: number): Promise<void> => {
  const file = clockFile(world.host);
  await writeFile(`${file}.new`, String(offset));
  await rename(`${file}.new`, file);
};

/** @returns what was done, for the log */
export const strike = async (world: World, { kind, delay, victim }: Fault): Promise<string> => {
  if (kind === "none") return "";
  await new Promise((resolve) => setTimeout(resolve, delay));
  if (kind === "cli") {
    const child = choose([...world.running], victim);
    child?.kill("SIGKILL");
    return `kill -9 of a command (${child?.pid})`;
  }
  if (kind === "clock") {
    const offset = Math.round((victim / 500 - 1) * LONGEST_STEP);
    await setClock(world, offset);
    return `the host's clock is off by ${Math.round(offset / 3600_000)} hours`;
  }
  if (kind === "freeze" || kind === "freeze-daemon") {
    const pid = choose(await victims(world, kind === "freeze" ? "machine" : "daemon"), victim);
    signal(pid, "SIGSTOP");
    await new Promise((resolve) => setTimeout(resolve, FREEZE));
    signal(pid, "SIGCONT");
    return `${kind} ${pid} for ${FREEZE} ms`;
  }
  const pid = choose(await victims(world, kind), victim);
  signal(pid, "SIGKILL");
  return `kill -9 of a ${kind} (${pid}) after ${delay} ms`;
};
