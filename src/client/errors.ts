/** Errors that only a client can see. */
import { BangerError } from "../contract/errors.ts";

/** The connection broke while an answer was due. */
export const lostDaemon = (cause?: unknown): BangerError =>
  new BangerError("DAEMON_UNREACHABLE", "the connection to the daemon was lost", {
    hint: "VMs go on running; see `banger daemon logs`, then run the command again",
    cause,
  });

/** There is nobody at the socket. */
export const noDaemon = (socketPath: string, cause?: unknown): BangerError =>
  new BangerError("DAEMON_UNREACHABLE", "the daemon is not running", {
    hint: "start it: banger daemon start",
    details: { socket: socketPath },
    cause,
  });
