/** Plain requests to the daemon, each over a connection of its own. */
import type { Socket } from "node:net";
import { BangerError, errnoOf, fromErrorBody } from "../contract/errors.ts";
import type { Route } from "../contract/routes.ts";
import { lostDaemon } from "./errors.ts";
import { ask, type Head } from "./wire.ts";

export type HttpRequest = { method: Route["method"]; path: string; body?: unknown };
export type HttpAnswer = {
  status: number;
  /** Build of the daemon. */
  build: string | undefined;
  /** To be read once. Throws DAEMON_UNREACHABLE when it breaks off. */
  body: AsyncIterable<Uint8Array>;
  /** Closes the connection, the body unread. */
  drop(): void;
};

/** Errors of a connection that was never made: nothing has been asked of anyone. */
export const isAbsent = (error: unknown): boolean => {
  const code = errnoOf(error instanceof Error && error.cause !== undefined ? error.cause : error);
  return code === "ENOENT" || code === "ECONNREFUSED";
};

/** Ends with its announced length, else with the connection. */
async function* readBody(socket: Socket, { headers, rest }: Head): AsyncGenerator<Uint8Array> {
  const announced = headers.get("content-length");
  let missing = announced === undefined ? Number.POSITIVE_INFINITY : Number(announced);
  try {
    if (rest.length > 0) yield rest;
    missing -= rest.length;
    if (missing <= 0) return;
    for await (const chunk of socket) {
      yield chunk as Buffer;
      missing -= (chunk as Buffer).length;
      if (missing <= 0) return;
    }
  } catch (error) {
    throw lostDaemon(error);
  } finally {
    socket.destroy();
  }
  if (missing !== Number.POSITIVE_INFINITY) throw lostDaemon();
}

export const answerOf = (socket: Socket, head: Head): HttpAnswer => ({
  status: head.status,
  build: head.build,
  body: readBody(socket, head),
  drop: () => void socket.destroy(),
});

/**
 * @param signal breaks it off, the reading of the body too
 * @returns the answer, its body unread
 * @throws DAEMON_UNREACHABLE
 */
export const sendRequest = async (
  socketPath: string,
  request: HttpRequest,
  signal?: AbortSignal,
): Promise<HttpAnswer> => {
  const { socket, head } = await ask(socketPath, request, "1.0", { signal });
  return answerOf(socket, head);
};

/** The error in the body of an answer with a status of 400 or more. */
const errorOfAnswer = (body: string, status: number): BangerError => {
  try {
    return fromErrorBody(JSON.parse(body));
  } catch (error) {
    return new BangerError(
      "INTERNAL",
      `the daemon answered with status ${status}: ${body.slice(0, 200) || "(nothing)"}`,
      { cause: error },
    );
  }
};

/** @throws the daemon's error, or DAEMON_UNREACHABLE when the body breaks off */
export const readJson = async ({ status, body }: HttpAnswer): Promise<unknown> => {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString("utf8");
  if (status >= 400) throw errorOfAnswer(text, status);
  return text === "" ? {} : JSON.parse(text);
};

/** The lines of an answer of JSON lines. @throws DAEMON_UNREACHABLE when the body breaks off */
export async function* readLines({ body }: HttpAnswer): AsyncGenerator<unknown> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of body) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line !== "") yield JSON.parse(line);
  }
  if (rest !== "") yield JSON.parse(rest);
}
