/** Random commands over several VMs with faults at random moments; afterwards nothing is lost and nothing is left. */
import { execFile } from "node:child_process";
import { mkdir, readFile, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { everythingIsOwned } from "./owners.ts";
import { plan } from "./plan.ts";
import { strike } from "./strike.ts";
import { act, clockFile, FORK, give, list, type Promised, type Result, type World } from "./world.ts";

const SLIM = "debian-bookworm-slim";
/** Of the small file system, in MiB: kernel and image take about 240. */
const SMALL = 400;
/** What is made free on it after each step, in bytes. */
const LEAST_ROOM = 24 * 2 ** 20;

export type ChaosOptions = {
  seed: number;
  commands: number;
  vms: number;
  /** All that the daemon keeps lies on a file system that commands fill. Needs root. */
  small: boolean;
  /** VMs start from templates, as they do by default, and templates are made meanwhile. */
  templates: boolean;
  say(line: string): void;
};

const execute = promisify(execFile);

const stateFolder = ({ env }: Host): string => join(env.XDG_STATE_HOME, "banger");

/** Exit statuses of a command that was refused, failed or was killed; its guest's own come on top. */
const expected = (words: readonly string[], status: number | null): boolean =>
  status === null || [0, 1, 2, 130, 141].includes(status) || words.includes("exec") || words.includes("run");

/** Whatever is done to it, banger knows what happened. */
const checkResult = ({ words, done }: Result): void => {
  if (!done) return;
  const { status, stderr } = done;
  if (!expected(words, status)) throw new Error(`${words.join(" ")} ended with ${status}: ${stderr}`);
  if (/this is a bug in banger|Error:.*\n\s+at /.test(stderr)) throw new Error(`${words.join(" ")}: ${stderr}`);
};

const makeWorld = (host: Host, options: ChaosOptions): World => ({
  host,
  names: Array.from({ length: options.vms }, (_, index) => `vm-${index}`),
  promises: new Map(),
  snapshots: new Map(),
  forks: new Map(),
  small: options.small,
  running: new Set(),
  say: options.say,
});

/** Gives a command that has to succeed. */
const must = async (world: World, ...words: string[]): Promise<string> => {
  const { status, stdout, stderr } = await give(world, words);
  if (status !== 0) throw new Error(`${words.join(" ")} ended with ${status}: ${stderr}`);
  return stdout;
};

/** On a small file system some VMs may stand still for want of room: snapshots go, then one VM after the other, until the rest has it. */
const makeRoom = async (world: World): Promise<void> => {
  for (;;) {
    const vms = await list(world);
    const full = vms.filter(({ reason }) => reason?.includes("disk is full"));
    const { bavail, bsize } = await statfs(stateFolder(world.host));
    if (full.length === 0 && bavail * bsize > LEAST_ROOM) return;
    world.say(`${Math.round((bavail * bsize) / 2 ** 20)} MiB are free, ${full.length} VMs wait for more`);
    const snapshots = JSON.parse(await must(world, "snapshot", "list", "--json")) as { name: string }[];
    const victim = vms.at(-1);
    if (snapshots.length > 0) {
      world.snapshots.clear();
      await must(world, "snapshot", "delete", ...snapshots.map(({ name }) => name));
    } else if (victim) {
      world.promises.delete(victim.name);
      await must(world, "vm", "delete", victim.name);
    } else throw new Error("there is no room, and nothing left that could go");
    for (const { name } of full) if (name !== victim?.name) await give(world, ["vm", "start", name]);
  }
};

/** Starts a VM, whatever it was, and looks for all that was fsynced in it. */
const opens = async (world: World, name: string, promised: Promised | undefined): Promise<void> => {
  await must(world, "vm", "start", name);
  const shown = await must(world, "vm", "exec", name, "--", "sh", "-c", "ls /root/m 2>/dev/null; true");
  const there = new Set(shown.split("\n").filter(Boolean).map(Number));
  const lost = [...(promised?.markers ?? [])].filter((marker) => !there.has(marker));
  if (lost.length > 0) throw new Error(`${name} has lost what was fsynced: ${lost.join(", ")}`);
};

/** Every VM opens, and its file system is sound once it has stopped. */
const everyVmOpens = async (world: World): Promise<void> => {
  for (const { name, id } of await list(world)) {
    await opens(world, name, world.promises.get(name));
    await must(world, "vm", "stop", name);
    const disk = join(stateFolder(world.host), "vms", id, "disk.ext4");
    const fsck = await world.host.tool("e2fsck", "-fn", disk);
    if (fsck.status !== 0) throw new Error(`the disk of ${name} is damaged: ${fsck.stdout}`);
  }
};

/** From every snapshot a VM goes on with what it held. */
const everySnapshotOpens = async (world: World): Promise<void> => {
  for (const [snapshot, promised] of world.snapshots) {
    if (!promised.exists) continue;
    const name = (await must(world, "vm", "restore", snapshot)).trim();
    await opens(world, name, promised);
    await must(world, "vm", "delete", name);
  }
};

/** Forks are looked into and go, or there would be more with every step. */
const endForks = async (world: World): Promise<void> => {
  const names = (await list(world)).map(({ name }) => name).filter((name) => name.startsWith(FORK));
  for (const name of names) await opens(world, name, world.forks.get(name));
  if (names.length > 0) await must(world, "vm", "delete", ...names);
  world.forks.clear();
};

const checkLog = async (world: World): Promise<void> => {
  const text = await readFile(join(stateFolder(world.host), "daemon.log"), "utf8");
  const bad = text.split("\n").find((line) => /uncaught exception|"code":"INTERNAL"/.test(line));
  if (bad) throw new Error(`the daemon's log says: ${bad}`);
};

/**
 * One run.
 * @returns what it did, counted
 * @throws with the step that broke something; the seed repeats it
 */
export const chaos = async (options: ChaosOptions): Promise<{ commands: number; faults: number; markers: number }> => {
  const { seed, say } = options;
  await using host = await testHost(
    `log_level = "debug"\ndefault_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "128M"\ndisk_size = "1G"\n[templates]\nenabled = ${options.templates}\n`,
  );
  await using cleanUp = new AsyncDisposableStack();
  if (options.small) {
    const state = stateFolder(host);
    await mkdir(state, { recursive: true, mode: 0o700 });
    await execute("mount", ["-t", "tmpfs", "-o", `size=${SMALL}M,mode=0700`, "none", state]);
    cleanUp.defer(async () => {
      for (const { pid } of await host.processes()) process.kill(pid, "SIGKILL");
      await execute("umount", ["--lazy", state]);
    });
  }
  await installFixture(host, [SLIM]);
  await writeFile(clockFile(host), "0");
  const world = makeWorld(host, options);
  let commands = 0;
  let faults = 0;
  let number = 0;
  const steps = plan(seed, options.commands, options.vms);
  try {
    for (const { commands: together, fault } of steps) {
      number++;
      const acting = Promise.all(together.map((command) => act(world, command)));
      const [results, struck] = await Promise.all([acting, strike(world, fault)]);
      const words = results.map((result) => `${result.words.join(" ").slice(0, 60)} = ${result.done?.status}`);
      say(`${number}/${steps.length} ${words.join(" | ")}${struck ? `; ${struck}` : ""}`);
      for (const result of results) checkResult(result);
      commands += together.length;
      if (fault.kind !== "none") faults++;
      if (options.small) await makeRoom(world);
      await everythingIsOwned(world);
      await endForks(world);
    }
    await everyVmOpens(world);
    await everySnapshotOpens(world);
    await everythingIsOwned(world);
    await checkLog(world);
    const markers = [...world.promises.values()].reduce((sum, promised) => sum + promised.markers.size, 0);
    return { commands, faults, markers };
  } catch (error) {
    const log = await readFile(join(stateFolder(host), "daemon.log"), "utf8").catch(() => "");
    throw new Error(
      `seed ${seed}, step ${number}: ${error instanceof Error ? error.message : String(error)}\n${log.split("\n").slice(-40).join("\n")}`,
      { cause: error },
    );
  }
};
