/** Plain requests to the daemon over one kept connection. Node's HTTP client is loaded with the first of them. */
import type { Agent, IncomingMessage } from "node:http";
import { errnoOf } from "../contract/errors.ts";
import { BUILD_HEADER, type Route } from "../contract/routes.ts";
import { buildId } from "../contract/version.ts";
import { lostDaemon, noDaemon } from "./errors.ts";
import { errorOfAnswer } from "./upgrade.ts";

export type HttpRequest = { method: Route["method"]; path: string; body?: unknown };
export type HttpAnswer = { message: IncomingMessage; build: string | undefined };

export type Http = {
  /**
   * Sends a request.
   * @returns the answer, its body unread
   * @throws DAEMON_UNREACHABLE
   */
  send(request: HttpRequest): Promise<HttpAnswer>;
  close(): void;
};

/** Errors of a connection that was never made: nothing has been asked of anyone. */
export const isAbsent = (error: unknown): boolean => {
  const code = errnoOf(error instanceof Error && error.cause !== undefined ? error.cause : error);
  return code === "ENOENT" || code === "ECONNREFUSED";
};

export const openHttp = (socketPath: string): Http => {
  let agent: Agent | undefined;

  const once = (request: HttpRequest): Promise<HttpAnswer> =>
    new Promise((resolve, reject) => {
      const http = process.getBuiltinModule("node:http");
      agent ??= new http.Agent({ keepAlive: true });
      const body = request.body === undefined ? undefined : Buffer.from(JSON.stringify(request.body));
      const sent = http.request({
        socketPath,
        agent,
        method: request.method,
        path: request.path,
        headers: {
          host: "banger",
          [BUILD_HEADER]: buildId(),
          ...(body ? { "content-type": "application/json", "content-length": body.length } : {}),
        },
      });
      sent.once("response", (message) => {
        const build = message.headers[BUILD_HEADER];
        resolve({ message, build: typeof build === "string" ? build : undefined });
      });
      sent.once("error", (error) => reject(isAbsent(error) ? noDaemon(socketPath, error) : lostDaemon(error)));
      sent.end(body);
    });

  const send = async (request: HttpRequest): Promise<HttpAnswer> => {
    try {
      return await once(request);
    } catch (error) {
      // The daemon may close a kept connection just as it is used again. Asking twice is harmless only where nothing is changed.
      if (request.method !== "GET" || isAbsent(error)) throw error;
      return await once(request);
    }
  };

  return { send, close: () => agent?.destroy() };
};

/** @throws DAEMON_UNREACHABLE when the body breaks off */
export const readText = async (message: IncomingMessage): Promise<string> => {
  try {
    const chunks: Buffer[] = [];
    for await (const chunk of message) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks).toString("utf8");
  } catch (error) {
    throw lostDaemon(error);
  }
};

/** @throws the daemon's error */
export const readJson = async (message: IncomingMessage): Promise<unknown> => {
  const text = await readText(message);
  const status = message.statusCode ?? 0;
  if (status >= 400) throw errorOfAnswer(text, status);
  return text === "" ? {} : JSON.parse(text);
};

/** The lines of an answer of JSON lines. @throws DAEMON_UNREACHABLE when the body breaks off */
export async function* readLines(message: IncomingMessage): AsyncGenerator<unknown> {
  let rest = "";
  const decoder = new TextDecoder();
  try {
    for await (const chunk of message) {
      const lines = (rest + decoder.decode(chunk as Buffer, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) if (line !== "") yield JSON.parse(line);
    }
  } catch (error) {
    throw lostDaemon(error);
  }
  if (rest !== "") yield JSON.parse(rest);
}
