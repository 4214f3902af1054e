/** Times commands from a small process, as a shell starts them: in a bench's own its heap and what else it listens to count in. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";

export type Lap = { ms: number; status: number | null; stderr: string };

export type Stopwatch = Disposable & {
  /** Runs a program to its end. @throws what it wrote to stderr, when it fails */
  time(argv: readonly string[]): Promise<Lap>;
};

export const stopwatch = (env: Record<string, string>): Stopwatch => {
  const worker = fork(join(import.meta.dirname, "stopwatch-worker.ts"), { env: { ...process.env, ...env } });
  return {
    time: async (argv) => {
      worker.send(argv);
      const [lap] = (await once(worker, "message")) as [Lap];
      if (lap.status !== 0) throw new Error(`${argv.join(" ")} ended with ${lap.status}: ${lap.stderr}`);
      return lap;
    },
    [Symbol.dispose]: () => void worker.kill(),
  };
};
