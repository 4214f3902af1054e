/**
 * Builds the kernel and images of the fixture by the real program: build-fixture.ts FOLDER IMAGE...
 * One such process at a time: fixture.ts starts it under a lock.
 */
import { mkdir } from "node:fs/promises";
import { bangerIn } from "./host.ts";
import { fixtureEnvironment, fixtureKernel } from "./fixture.ts";

const [folder = "", ...images] = process.argv.slice(2);
const env = fixtureEnvironment(folder);
await mkdir(env.XDG_RUNTIME_DIR, { recursive: true, mode: 0o700 });

const run = async (...args: string[]): Promise<void> => {
  const done = await bangerIn(env, args, { timeout: 15 * 60_000 });
  if (done.status !== 0) throw new Error(`banger ${args.join(" ")} failed:\n${done.stderr}`);
};

try {
  await run("kernel", "pull", fixtureKernel);
  for (const image of images) await run("image", "pull", image);
} finally {
  await run("daemon", "stop");
}
