/** Everything on the host has an owner, and what is recorded is what is there. */
import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Vm } from "../../src/contract/vms.ts";
import { processStartTime } from "../../src/host/proc.ts";
import { list, type World } from "./world.ts";

/** How long the host may take to come to rest, in ms: stops and adoptions go on in the background. */
const SETTLE_LIMIT = 120_000;

const namesIn = (folder: string): Promise<string[]> => readdir(folder).catch((): string[] => []);

const pathsOf = ({ host: { env } }: World) => ({
  state: join(env.XDG_STATE_HOME, "banger"),
  runtime: join(env.XDG_RUNTIME_DIR, "banger"),
  cache: join(env.XDG_CACHE_HOME, "banger"),
});

const hasMachine = ({ state }: Vm): boolean => state === "running" || state === "paused";

/** Processes of this host that no VM and no daemon accounts for. */
const strayProcesses = async (world: World, vms: readonly Vm[]): Promise<string[]> => {
  const processes = await world.host.processes();
  const daemons = processes.filter(({ command }) => command.includes("bangerd"));
  const machines = processes.filter(({ command }) => command.includes("qemu-system"));
  const helpers = processes.filter(({ command }) => /--filter-network|passt/.test(command));
  const others = processes.filter((found) => ![...daemons, ...machines, ...helpers].includes(found));
  const running = vms.filter(hasMachine);
  const owned = new Set(running.map(({ pid }) => pid));
  const findings = [
    ...(daemons.length === 1 ? [] : [`${daemons.length} daemons`]),
    ...machines.filter(({ pid }) => !owned.has(pid)).map(({ pid }) => `machine ${pid} without a VM`),
    ...others.map(({ pid, command }) => `process ${pid}: ${command.slice(0, 200)}`),
  ];
  for (const { name, pid } of running) {
    if (!machines.some((machine) => machine.pid === pid)) findings.push(`${name} is without its machine`);
  }
  const recorded = helpersInDatabase(world);
  for (const { pid } of helpers) if (!recorded.has(pid)) findings.push(`helper ${pid} without a VM`);
  return findings;
};

const open = (world: World) =>
  new DatabaseSync(join(pathsOf(world).state, "banger.db"), { readOnly: true, timeout: 5000 });

const helpersInDatabase = (world: World): Set<number> => {
  const database = open(world);
  try {
    const rows = database.prepare("SELECT helpers FROM vms WHERE state <> 'stopped'").all();
    return new Set(
      rows.flatMap(({ helpers }) => (JSON.parse(String(helpers)) as { pid: number }[]).map(({ pid }) => pid)),
    );
  } finally {
    database.close();
  }
};

/** What the record says against what the daemon says and the host has. */
const recordDiffers = async (world: World, vms: readonly Vm[]): Promise<string[]> => {
  const database = open(world);
  try {
    const rows = database.prepare("SELECT id, name, state, pid, pid_start FROM vms").all();
    const findings: string[] = [];
    if (rows.length !== vms.length) findings.push(`${rows.length} records for ${vms.length} VMs`);
    for (const { id, name, state, pid, pid_start } of rows) {
      const vm = vms.find((candidate) => candidate.id === id);
      if (vm?.state !== state) findings.push(`${name} is ${vm?.state}, its record says ${state}`);
      if (pid !== null && (await processStartTime(Number(pid))) !== pid_start)
        findings.push(`${name} is recorded with process ${pid}, which is not there`);
      if ((pid !== null) !== (vm !== undefined && hasMachine(vm)))
        findings.push(`${name} is ${state} with process ${pid}`);
    }
    return findings;
  } finally {
    database.close();
  }
};

const strayFiles = async (world: World, vms: readonly Vm[]): Promise<string[]> => {
  const { state, runtime, cache } = pathsOf(world);
  const ids = new Set(vms.map(({ id }) => id));
  const running = new Set(vms.filter(hasMachine).map(({ id }) => id));
  const asleep = new Set(vms.filter((vm) => vm.state === "asleep").map(({ id }) => id));
  const findings: string[] = [];
  for (const name of await namesIn(runtime))
    if (!["bangerd.sock", "whose.sock", "vms"].includes(name)) findings.push(`runtime/${name}`);
  for (const id of await namesIn(join(runtime, "vms"))) {
    if (!running.has(id)) findings.push(`sockets of ${id}, which does not run`);
    for (const name of await namesIn(join(runtime, "vms", id)))
      if (!["agent.sock", "qmp.sock", "console.sock", "team.sock"].includes(name))
        findings.push(`runtime/vms/${id}/${name}`);
  }
  for (const id of await namesIn(join(state, "vms"))) {
    if (!ids.has(id)) findings.push(`folder of ${id}, which is no VM`);
    for (const name of await namesIn(join(state, "vms", id)))
      if (/\.(?:new|tmp)$/.test(name) || name === "waking" || (name === "asleep" && !asleep.has(id)))
        findings.push(`${id}/${name}`);
  }
  for (const kind of ["snapshots", "templates"])
    for (const name of await namesIn(join(state, kind)))
      if ((await namesIn(join(state, kind, name))).sort().join() !== "disk.ext4,manifest.json,memory,state")
        findings.push(`${kind}/${name} is not whole`);
  for (const name of await namesIn(join(state, "staging"))) findings.push(`staging/${name}`);
  for (const folder of [state, join(state, "ssh"), cache, join(cache, "initramfs")])
    for (const name of await namesIn(folder)) if (name.endsWith(".tmp")) findings.push(`${folder}/${name}`);
  const hosts = (await readFile(join(state, "ssh", "known_hosts"), "utf8").catch(() => "")).split("\n").filter(Boolean);
  for (const line of hosts) {
    const name = line.slice(0, line.indexOf(".vm "));
    if (!vms.some((vm) => vm.name === name)) findings.push(`known_hosts names ${name}`);
  }
  return findings;
};

/** Mounts, loop devices and namespaces that name a folder of this host, or belong to a process that is none of its own. */
const strayKernelObjects = async (world: World): Promise<string[]> => {
  const { env } = world.host;
  const root = join(env.HOME, "..");
  const findings: string[] = [];
  const mounts = (await readFile("/proc/self/mounts", "utf8")).split("\n").map((line) => line.split(" ")[1] ?? "");
  const small = join(env.XDG_STATE_HOME, "banger");
  for (const path of mounts) if (path.startsWith(root) && path !== small) findings.push(`mount at ${path}`);
  for (const name of await namesIn("/sys/block")) {
    const file = await readFile(`/sys/block/${name}/loop/backing_file`, "utf8").catch(() => "");
    if (file.startsWith(root)) findings.push(`loop device ${name} of ${file.trim()}`);
  }
  const ours = new Set((await world.host.processes()).map(({ pid }) => pid));
  for (const entry of await namesIn("/proc")) {
    if (!/^\d+$/.test(entry) || ours.has(Number(entry))) continue;
    const cwd = await readlink(`/proc/${entry}/cwd`).catch(() => "");
    if (cwd.startsWith(`${root}/`) && !cwd.startsWith(env.HOME)) findings.push(`process ${entry} stands in ${cwd}`);
  }
  return findings;
};

/** What was promised and is not so. */
const broken = async (world: World, vms: readonly Vm[]): Promise<string[]> => {
  const snapshots = await namesIn(join(pathsOf(world).state, "snapshots"));
  return [
    ...[...world.promises, ...world.forks].filter(
      ([name, { exists }]) => exists && !vms.some((vm) => vm.name === name),
    ),
    ...[...world.snapshots].filter(([name, { exists }]) => exists && !snapshots.includes(name)),
  ].map(([name]) => `${name} is lost`);
};

/** All that has no owner or is not as it was promised; empty: nothing. */
export const findings = async (world: World): Promise<string[]> => {
  const vms = await list(world);
  const busy = vms
    .filter(({ state }) => state === "starting" || state === "stopping")
    .map(({ name, state }) => `${name} is ${state}`);
  if (busy.length > 0) return busy;
  const parts = await Promise.all([
    strayProcesses(world, vms),
    recordDiffers(world, vms),
    strayFiles(world, vms),
    strayKernelObjects(world),
    broken(world, vms),
  ]);
  return parts.flat();
};

/**
 * Waits until the host has come to rest.
 * @throws with all that has no owner or is not as it was promised
 */
export const everythingIsOwned = async (world: World): Promise<void> => {
  const limit = Date.now() + SETTLE_LIMIT;
  for (;;) {
    const found = await findings(world);
    if (found.length === 0) return;
    if (Date.now() > limit) throw new Error(`not as it should be:\n  ${found.join("\n  ")}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
};
