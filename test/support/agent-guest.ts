/** The real agent as a guest without a VM: what it dials are this machine's own servers. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentProgress } from "../../src/contract/progress.ts";
import { connectGuest, type GuestConnection } from "../../src/guest/connection.ts";
import { socketPair } from "../../src/host/sockets.ts";

const agent = join(import.meta.dirname, "..", "..", "build", "bin", "banger-vsock-agent");

export type AgentGuest = AsyncDisposable & { guest: GuestConnection };

export const agentGuest = async (): Promise<AgentGuest> => {
  const folder = await mkdtemp(join(tmpdir(), "banger-agent-"));
  const [channel, theirs] = await socketPair(folder);
  await rm(folder, { recursive: true });
  const child: ChildProcess = spawn(agent, ["--serve-fd", "0"], { stdio: [theirs, "inherit", "inherit"] });
  theirs.destroy();
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const guest = await connectGuest({ channel, epoch: 1, onEvent: () => undefined }, silentProgress());
  return {
    guest,
    [Symbol.asyncDispose]: async () => {
      guest.close();
      await ended;
    },
  };
};
