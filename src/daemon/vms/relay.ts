/** Joins a client's stream to a guest's, byte for byte, with back-pressure on both sides. */
import { pipeline } from "node:stream/promises";
import { BangerError } from "../../contract/errors.ts";
import { abortError } from "../../contract/progress.ts";
import type { Exec } from "../../contract/vms.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import type { GuestStream, StreamResult } from "../../guest/stream.ts";
import type { ClientStream } from "../api/client-stream.ts";

/**
 * Opens `request` in the guest and relays until its end.
 * @returns the guest's result, after all its output has gone to the client
 * @throws the guest's error, or CANCELLED when the client went away: the guest's work is then ended
 */
export const relay = async (
  client: ClientStream,
  guest: GuestConnection,
  request: Record<string, unknown>,
): Promise<StreamResult> => await relayStream(client, guest.open(request));

/** As `relay`, of a stream that is open. */
export const relayStream = async (client: ClientStream, stream: GuestStream): Promise<StreamResult> => {
  client.onControl((message) => stream.control(message));
  const abort = () => stream.abort();
  if (client.gone.aborted) abort();
  client.gone.addEventListener("abort", abort, { once: true });
  stream.opened.then(
    (opened) => client.opened(opened),
    () => undefined,
  );
  // A client that goes away destroys its input: the guest then gets CLOSE, not an END that looks like a proper end.
  client.input.on("data", (chunk: Buffer) => {
    if (!stream.input.write(chunk)) {
      client.input.pause();
      stream.input.once("drain", () => client.input.resume());
    }
  });
  client.input.once("end", () => stream.input.end());
  const outputs = [pipeline(stream.output, client.output), pipeline(stream.errors, client.errors)];
  try {
    const result = await endOf(stream, client.gone);
    await Promise.allSettled(outputs);
    return result;
  } finally {
    client.gone.removeEventListener("abort", abort);
    stream.input.destroy();
    client.input.resume();
  }
};

/** How long a guest may take to end a command whose client is gone, in ms. Its agent needs 5 s for one that ignores SIGHUP. */
const ABORT_LIMIT = 10_000;

/** The stream's result; without a client it is not waited for forever, or a guest that stands still would keep its VM from being deleted. */
const endOf = async (stream: GuestStream, gone: AbortSignal): Promise<StreamResult> => {
  const given = Promise.withResolvers<never>();
  let timer: NodeJS.Timeout | undefined;
  const onGone = () => {
    timer = setTimeout(() => given.reject(abortError(gone)), ABORT_LIMIT);
  };
  if (gone.aborted) onGone();
  gone.addEventListener("abort", onGone, { once: true });
  try {
    return await Promise.race([stream.result, given.promise]);
  } finally {
    gone.removeEventListener("abort", onGone);
    clearTimeout(timer);
  }
};

/** The agent's request for a command; no argv means the user's login shell. */
export const execRequest = ({ argv, env, cwd, user, pty }: Exec): Record<string, unknown> => ({
  op: "exec",
  argv: argv.length > 0 ? argv : ["/bin/sh", "-c", 'exec "$SHELL" -l'],
  ...(env ? { env } : {}),
  ...(cwd === undefined ? {} : { cwd }),
  ...(user === undefined ? {} : { user }),
  ...(pty ? { pty } : {}),
});

/** The guest's failure to start a command, in the words and exit statuses that a shell has for it. */
export const execError = (error: unknown, { argv, cwd, user }: Exec): unknown => {
  if (!(error instanceof BangerError) || error.code !== "GUEST_ERROR") return error;
  const program = argv[0] ?? "the login shell";
  const code = String(error.details?.code);
  if (code === "ENOENT" && argv.length === 0)
    return new BangerError("EXEC_NOT_FOUND", "the image has no shell", {
      hint: "run a program of its own: banger vm exec VM -- /PROGRAM, or banger vm run --image IMAGE -- /PROGRAM",
      cause: error,
    });
  if (code === "ENOENT")
    return new BangerError("EXEC_NOT_FOUND", `${program}: not found in the guest`, { cause: error });
  if (code === "EISDIR") return new BangerError("EXEC_NOT_EXECUTABLE", `${program}: is a directory`, { cause: error });
  if (code === "EACCES")
    return new BangerError("EXEC_NOT_EXECUTABLE", `${program}: permission denied in the guest`, { cause: error });
  if (code === "ENOEXEC")
    return new BangerError("EXEC_NOT_EXECUTABLE", `${program}: not a program the guest can run`, { cause: error });
  if (code === "ECWD")
    return new BangerError("GUEST_ERROR", `cannot run in ${cwd}: ${error.message}`, { cause: error });
  return new BangerError("GUEST_ERROR", `cannot run ${program}${user ? ` as ${user}` : ""}: ${error.message}`, {
    details: error.details,
    cause: error,
  });
};
