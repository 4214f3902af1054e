/** Names that only the daemon knows. Quick and silent: without a daemon, or with one that does not answer at once, there are none. */
import { lstat } from "node:fs/promises";
import { type Client, openClient } from "../../client/client.ts";
import { daemonSocket, roots } from "../../host/paths.ts";

/** What may stand at the cursor, and one line of what it is. */
export type Candidate = { value: string; what: string };
export type NameKind = "vm" | "image" | "kernel" | "snapshot";
export type LiveNames = (kind: NameKind | `available ${"image" | "kernel"}`) => Promise<Candidate[]>;

/** Longer than this nobody waits for a completion, in ms. */
const LIMIT = 500;

const ask: Record<Parameters<LiveNames>[0], (client: Client) => Promise<Candidate[]>> = {
  vm: async (client) =>
    (await client.call("vmList", {}, {})).map(({ name, state, image }) => ({
      value: name,
      what: `${state}, ${image}`,
    })),
  image: async (client) =>
    (await client.call("imageList", {}, {})).map(({ name, description }) => ({ value: name, what: description })),
  kernel: async (client) =>
    (await client.call("kernelList", {}, {})).map(({ name, description }) => ({ value: name, what: description })),
  snapshot: async (client) =>
    (await client.call("snapshotList", {}, {})).map(({ name, vm, image }) => ({
      value: name,
      what: `${vm}, ${image}`,
    })),
  "available image": async (client) =>
    (await client.call("imageAvailable", {}, {})).map(({ name, description }) => ({ value: name, what: description })),
  "available kernel": async (client) =>
    (await client.call("kernelAvailable", {}, {})).map(({ name, description }) => ({ value: name, what: description })),
};

/** Nothing but these reaches a shell. */
const SPEAKABLE = /^[a-z0-9][a-z0-9._/:@-]*$/i;

/** A folder of another user could hold anybody's daemon, and their words would be put on the command line. */
const runtimeIsOurs = async (): Promise<boolean> => {
  const found = await lstat(roots().runtime);
  return found.isDirectory() && found.uid === process.getuid?.();
};

const none = (): Promise<Candidate[]> => new Promise((resolve) => setTimeout(resolve, LIMIT, []).unref());

export const liveNames: LiveNames = async (kind) => {
  try {
    if (!(await runtimeIsOurs())) return [];
    // Named, so that no folder is made for it; never started, never replaced.
    using client = openClient({ autostart: false, socketPath: daemonSocket() });
    const found = await Promise.race([ask[kind](client), none()]);
    return found.filter(({ value }) => SPEAKABLE.test(value));
  } catch {
    // Not there, or of another version: nothing to offer, and nobody wants to read why.
    return [];
  }
};
