/** What the daemon costs while nothing is asked of it and ten VMs idle. */
import { readFile } from "node:fs/promises";
import type { Host } from "../test/support/host.ts";
import { type Figure, round } from "./measure.ts";

const VMS = 10;
const SECONDS = 30;
/** Ticks of /proc/PID/stat a second, on every Linux that Node runs on. */
const TICKS = 100;

const cpuTicks = async (pid: number): Promise<number> => {
  const text = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
};

const residentMiB = async (pid: number): Promise<number> => {
  const match = /^VmRSS:\s+(\d+) kB/m.exec(await readFile(`/proc/${pid}/status`, "utf8"));
  return Number(match?.[1]) / 1024;
};

export const idleDaemon = async (host: Host): Promise<Figure[]> => {
  const names = Array.from({ length: VMS }, (_, index) => `idle-${index}`);
  for (const name of names) {
    const done = await host.banger(
      "vm",
      "run",
      "-d",
      "--name",
      name,
      "--image",
      "debian-bookworm-slim",
      "--vcpu",
      "1",
      "--memory",
      "128M",
    );
    if (done.status !== 0) throw new Error(done.stderr);
  }
  const pid = await host.daemonPid();
  await new Promise((resolve) => setTimeout(resolve, 5000));
  const before = await cpuTicks(pid);
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
  const percent = (((await cpuTicks(pid)) - before) / TICKS / SECONDS) * 100;
  const memory = await residentMiB(pid);
  await host.banger("vm", "delete", ...names);
  return [
    {
      what: `daemon's resident memory with ${VMS} idle VMs`,
      value: round(memory),
      unit: "MiB",
      n: 1,
      limit: "at most 80 MiB",
      holds: memory <= 80,
    },
    {
      what: `daemon's CPU over ${SECONDS} s with ${VMS} idle VMs`,
      value: Math.round(percent * 100) / 100,
      unit: "%",
      n: 1,
      limit: "0 % (under one tick in a thousand)",
      holds: percent < 0.1,
    },
  ];
};
