/** Random commands over several VMs with faults at random moments; afterwards nothing is lost and nothing is left. */
import { execFile } from "node:child_process";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { everythingIsOwned } from "./owners.ts";
import { plan } from "./plan.ts";
import { strike } from "./strike.ts";
import { act, give, list, promiseOf, type Result, type World } from "./world.ts";

const SLIM = "debian-bookworm-slim";
/** Of the small file system that holds the disks, in MiB. */
const SMALL = 160;

export type ChaosOptions = {
  seed: number;
  commands: number;
  vms: number;
  /** The disks lie on a file system that commands fill. Needs root. */
  small: boolean;
  say(line: string): void;
};

const execute = promisify(execFile);

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
  small: options.small,
  running: new Set(),
  say: options.say,
});

/** With disks on a small file system some VMs may stand still for want of room: one after the other goes, until the rest has it. */
const makeRoom = async (world: World): Promise<void> => {
  for (;;) {
    const vms = await list(world);
    const full = vms.filter(({ reason }) => reason?.includes("disk is full"));
    const free = Number(
      (await execute("stat", ["-f", "-c", "%a %S", join(world.host.env.XDG_STATE_HOME, "banger", "vms")])).stdout
        .split(" ")
        .reduce((a, b) => String(Number(a) * Number(b))),
    );
    if (full.length === 0 && free > 24 * 2 ** 20) return;
    const victim = vms.at(-1);
    if (!victim) return;
    world.promises.delete(victim.name);
    const done = await give(world, ["vm", "delete", victim.name]);
    if (done.status !== 0) throw new Error(`no room can be made: ${done.stderr}`);
    for (const { name } of full) if (name !== victim.name) await give(world, ["vm", "start", name]);
  }
};

/** Every VM opens, with all that was fsynced in it, and its file system is sound once it has stopped. */
const everyVmOpens = async (world: World): Promise<void> => {
  for (const { name, id } of await list(world)) {
    const started = await give(world, ["vm", "start", name]);
    if (started.status !== 0) throw new Error(`${name} does not start: ${started.stderr}`);
    const shown = await give(world, ["vm", "exec", name, "--", "sh", "-c", "ls /root/m 2>/dev/null; true"]);
    if (shown.status !== 0) throw new Error(`${name} does not open: ${shown.stderr}`);
    const there = new Set(shown.stdout.split("\n").filter(Boolean).map(Number));
    const lost = [...promiseOf(world, name).markers].filter((marker) => !there.has(marker));
    if (lost.length > 0) throw new Error(`${name} has lost what was fsynced: ${lost.join(", ")}`);
    const stopped = await give(world, ["vm", "stop", name]);
    if (stopped.status !== 0) throw new Error(`${name} does not stop: ${stopped.stderr}`);
    const disk = join(world.host.env.XDG_STATE_HOME, "banger", "vms", id, "disk.ext4");
    const fsck = await world.host.tool("e2fsck", "-fn", disk);
    if (fsck.status !== 0) throw new Error(`the disk of ${name} is damaged: ${fsck.stdout}`);
  }
};

const checkLog = async (world: World): Promise<void> => {
  const text = await readFile(join(world.host.env.XDG_STATE_HOME, "banger", "daemon.log"), "utf8");
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
    `log_level = "debug"\ndefault_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "128M"\ndisk_size = "1G"\n${
      // A template's memory is as large as what the small file system has left.
      options.small ? "[templates]\nenabled = false\n" : ""
    }`,
  );
  await installFixture(host, [SLIM]);
  const vmsFolder = join(host.env.XDG_STATE_HOME, "banger", "vms");
  await mkdir(vmsFolder, { recursive: true, mode: 0o700 });
  await using cleanUp = new AsyncDisposableStack();
  if (options.small) {
    await execute("mount", ["-t", "tmpfs", "-o", `size=${SMALL}M,mode=0700`, "none", vmsFolder]);
    cleanUp.defer(async () => {
      for (const { pid } of await host.processes()) process.kill(pid, "SIGKILL");
      await execute("umount", ["--lazy", vmsFolder]);
    });
  }
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
    }
    await everyVmOpens(world);
    await everythingIsOwned(world);
    await checkLog(world);
    const markers = [...world.promises.values()].reduce((sum, promised) => sum + promised.markers.size, 0);
    return { commands, faults, markers };
  } catch (error) {
    const log = await readFile(join(host.env.XDG_STATE_HOME, "banger", "daemon.log"), "utf8").catch(() => "");
    throw new Error(
      `seed ${seed}, step ${number}: ${error instanceof Error ? error.message : String(error)}\n${log.split("\n").slice(-40).join("\n")}`,
      { cause: error },
    );
  }
};
