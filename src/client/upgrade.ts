/** Opens an upgraded connection. */
import type { Socket } from "node:net";
import { type Route, STREAM_PROTOCOL } from "../contract/routes.ts";
import { lostDaemon } from "./errors.ts";
import { answerOf, readJson } from "./http.ts";
import { ask } from "./wire.ts";

export type Upgraded = {
  /** Paused. */
  socket: Socket;
  /** What came after the answer's head. */
  head: Uint8Array;
  /** Build of the daemon. */
  build: string | undefined;
};

/**
 * @param path of the endpoint, parameters filled in
 * @throws the daemon's error, or DAEMON_UNREACHABLE
 */
export const upgrade = async (socketPath: string, method: Route["method"], path: string): Promise<Upgraded> => {
  const { socket, head } = await ask(socketPath, { method, path }, "1.1", {
    headers: { Connection: "Upgrade", Upgrade: STREAM_PROTOCOL },
  });
  if (head.status === 101) return { socket, head: head.rest, build: head.build };
  await readJson(answerOf(socket, head));
  throw lostDaemon();
};
