/** Stops the daemon. VMs go on running. */
import { routes } from "../contract/routes.ts";
import { daemonSocket } from "../host/paths.ts";
import { ensureRuntimeRoot } from "../host/runtime.ts";
import { daemonGone } from "./daemon-start.ts";
import { readJson, sendRequest } from "./http.ts";
import { connectSocket } from "./wire.ts";

/**
 * Asks it to end and waits until it has.
 * @param spare a daemon of this build is left running: a peer has replaced the one that was to be stopped
 * @throws DAEMON_UNREACHABLE when it does not run, DAEMON_START_FAILED when it does not end
 */
export const stopDaemon = async (socketPath = daemonSocket(), spare?: string): Promise<void> => {
  await ensureRuntimeRoot();
  const watched = await connectSocket(socketPath);
  const gone = daemonGone(watched);
  // Waited for below; when the request fails first, its error is the one that counts.
  gone.catch(() => undefined);
  try {
    if (spare !== undefined) {
      const answer = await sendRequest(socketPath, { method: "GET", path: routes.status.path });
      await readJson(answer);
      if (answer.build === spare) return;
    }
    await readJson(await sendRequest(socketPath, { method: "POST", path: routes.shutdown.path, body: {} }));
    await gone;
  } finally {
    watched.destroy();
  }
};
