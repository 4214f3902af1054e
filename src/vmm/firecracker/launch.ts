/** Starts Firecracker through the launcher (agent/src/host/launch.rs), which makes its namespaces and stands beside it until it ends. */
import { open } from "node:fs/promises";
import type { Readable } from "node:stream";
import type { Socket } from "node:net";
import { agentBinary } from "../../host/paths.ts";
import { type Exit, startProcess } from "../../host/process.ts";
import type { MachineSpec } from "../driver.ts";
import { firecrackerArguments } from "./arguments.ts";

export type Launched = {
  /** Firecracker's own; never resolves where it has not come to be. */
  pid: Promise<number>;
  /** The launcher's. */
  launcher: number;
  /** How Firecracker ended, or the launcher before it. */
  exited: Promise<Exit>;
  /** Ends both. Resolves when they are gone. */
  end(): Promise<void>;
};

export type LaunchOptions = {
  program: string;
  /** What the program needs besides the machine's own files, where it is to find nothing else; undefined: it finds what its user does. */
  view: readonly string[] | undefined;
  /** Names of pipes in the machine's folder, for the program to write to. */
  pipes: readonly string[];
  /** passt's socket. */
  nic: Socket | undefined;
};

/** Longest line that is read of the launcher: a number. */
const MAX_LINE = 16;

export const launch = async (spec: MachineSpec, { program, view, pipes, nic }: LaunchOptions): Promise<Launched> => {
  const own = firecrackerArguments(program, spec);
  const piped = pipes.flatMap((name) => ["--pipe", name]);
  const tap = spec.nic ? ["--tap", spec.nic.rules] : [];
  const argv = [agentBinary(), "--launch", ...piped, ...tap, ...viewArguments(spec, view), "--", ...own] as const;
  await using log = await open(spec.log, "w", 0o600);
  // passt's too.
  await using networkLog = await open(spec.networkLog, "a", 0o600);
  const running = await startProcess({
    argv: spec.background ? ["nice", "-n", "19", ...argv] : argv,
    cwd: spec.sockets.folder,
    stdio: ["ignore", log.fd, log.fd, nic ?? "ignore", "pipe", networkLog.fd],
    outlive: true,
  });
  return {
    pid: firstLine(running.child.stdio[4] as Readable),
    launcher: running.pid,
    exited: running.exited,
    end: async () => {
      // The launcher ends Firecracker, and then itself.
      running.signal("SIGTERM");
      await running.exited;
    },
  };
};

const viewArguments = (spec: MachineSpec, view: readonly string[] | undefined): string[] => {
  if (view === undefined) return [];
  const { kernel, initramfs, restore, disks, sockets, saving } = spec;
  const read = [
    ...view,
    ...(restore ? [restore.state, restore.memory] : [kernel, initramfs]),
    ...disks.filter(({ readonly }) => readonly).map(({ path }) => path),
  ];
  const write = [sockets.folder, saving, ...disks.filter(({ readonly }) => !readonly).map(({ path }) => path)];
  return ["--confine", ...read.flatMap((path) => ["--read", path]), ...write.flatMap((path) => ["--write", path])];
};

const firstLine = (pipe: Readable): Promise<number> =>
  new Promise((resolve) => {
    let line = "";
    pipe.on("error", () => pipe.destroy());
    pipe.setEncoding("latin1").on("data", (text: string) => {
      line += text;
      if (!line.includes("\n") && line.length < MAX_LINE) return;
      pipe.destroy();
      if (/^\d+\n/.test(line)) resolve(Number.parseInt(line, 10));
    });
  });
