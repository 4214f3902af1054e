/** A daemon with a thousand recorded VMs and twenty that run: its start, its listing, how it finds them again, and what it weighs. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { promisify } from "node:util";
import { processStartTime } from "../src/host/proc.ts";
import { installFixture } from "../test/support/fixture.ts";
import { type Host, testHost } from "../test/support/host.ts";
import { recordVms } from "../test/support/recorded-vms.ts";
import { processEnds } from "../test/support/wait.ts";
import { type Figure, interleaved, median, round, spreadOf, timed } from "./measure.ts";

const run = promisify(execFile);
const build = join(import.meta.dirname, "..", "build");
const RECORDED = 1000;
const RUNNING = 20;
const SLIM = "debian-bookworm-slim";

/** Starts the daemon as a client does; resolves with its first line, which says that it answers. */
const startDaemon = async (host: Host): Promise<ChildProcess> => {
  const child = spawn(join(build, "bin", "bangerd"), [], {
    env: { ...process.env, ...host.env },
    stdio: ["ignore", "ignore", "ignore", "pipe"],
    detached: true,
  });
  const channel = child.stdio[3] as Readable;
  const [line] = (await once(channel, "data")) as [Buffer];
  if (!line.includes("ready")) throw new Error(String(line));
  channel.destroy();
  child.unref();
  return child;
};

const killDaemon = async (host: Host): Promise<void> => {
  const pid = await host.daemonPid();
  process.kill(pid, "SIGKILL");
  await processEnds(pid);
};

const residentMiB = async (pid: number): Promise<number> =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;

const atMost = (what: string, times: readonly number[], limit: number, baseline?: Figure["baseline"]): Figure => ({
  what,
  value: round(median(times)),
  unit: "ms",
  n: times.length,
  spread: spreadOf(times),
  ...(baseline ? { baseline } : {}),
  limit: `at most ${limit} ms`,
  holds: median(times) <= limit,
});

/** Several times: the daemon is killed, and a new one is timed until it answers and until a command has run in each VM that runs. */
const adoption = async (
  host: Host,
  names: readonly string[],
): Promise<{ answers: number[]; usable: number[]; before: number[] }> => {
  const inAll = () => Promise.all(names.map((name) => host.banger("vm", "ports", name)));
  const result: { answers: number[]; usable: number[]; before: number[] } = { answers: [], usable: [], before: [] };
  for (let round = 0; round < 5; round++) {
    result.before.push(await timed(inAll));
    await killDaemon(host);
    const began = performance.now();
    await startDaemon(host);
    result.answers.push(performance.now() - began);
    const running = (await host.json<{ state: string }[]>("vm", "list")).filter(({ state }) => state === "running");
    if (running.length !== names.length) throw new Error(`${running.length} VMs were taken up`);
    await inAll();
    result.usable.push(performance.now() - began);
  }
  return result;
};

export const manyVms = async (_host: Host): Promise<Figure[]> => {
  await using host = await testHost(`default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "128M"\n`);
  await installFixture(host, [SLIM]);
  await recordVms(
    host,
    Array.from({ length: RECORDED }, (_, index) => `vm-${index}`),
  );
  const env = { ...process.env, ...host.env };
  const starts: number[] = [];
  for (let round = 0; round < 10; round++) {
    starts.push(await timed(() => startDaemon(host)));
    await killDaemon(host);
  }
  const names = Array.from({ length: RUNNING }, (_, index) => `running-${index}`);
  for (const name of names) {
    const done = await host.banger("vm", "run", "-d", "--name", name);
    if (done.status !== 0) throw new Error(done.stderr);
  }
  const pid = await host.daemonPid();
  const [lists = [], bare = []] = await interleaved(20, [
    () => run(join(build, "bin", "banger"), ["vm", "list"], { env, maxBuffer: 2 ** 24 }),
    () => run(join(build, "lib", "node"), ["-e", "0"], { env }),
  ]);
  const memory = await residentMiB(pid);
  const { answers, usable, before } = await adoption(host, names);
  if ((await processStartTime(pid)) !== undefined) throw new Error("the first daemon still runs");
  await host.banger("vm", "kill", ...names);
  const node = { what: "`node -e 0` of the same Node", value: round(median(bare)) };
  return [
    atMost(`start of a daemon with ${RECORDED} recorded VMs, until it answers`, starts, 300, node),
    atMost(`\`vm list\` with ${RECORDED} recorded VMs and ${RUNNING} that run`, lists, 100, node),
    atMost(`a new daemon takes up ${RUNNING} running VMs, until it answers`, answers, 1000),
    {
      ...atMost(`the same, until the guest of each has answered it (20 commands at once)`, usable, 0, {
        what: "the same commands without a new daemon",
        value: round(median(before)),
      }),
      limit: `at most 1000 ms more: ${round(median(usable) - median(before))}`,
      holds: median(usable) - median(before) <= 1000,
    },
    {
      what: `daemon's resident memory with ${RUNNING} running and ${RECORDED} recorded VMs`,
      value: round(memory),
      unit: "MiB",
      n: 1,
      limit: "at most 110 MiB",
      holds: memory <= 110,
    },
  ];
};
