/** How the proxy says no: a status, and a reason that a program can read. */
import { type IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { errorTable, toBangerError, toErrorBody } from "../../contract/errors.ts";

/** Names the error's code in every answer that is the proxy's own. */
export const REFUSED_HEADER = "X-Banger-Refused";

type Answer = { status: number; headers: Record<string, string | number>; body: string };

const answerOf = (thrown: unknown): Answer => {
  const error = toBangerError(thrown);
  const body = `${JSON.stringify({ error: toErrorBody(error) })}\n`;
  return {
    status: errorTable[error.code].http,
    headers: {
      "Content-Type": "application/json",
      "Content-Length": Buffer.byteLength(body),
      [REFUSED_HEADER]: error.code,
      // What of a body is still on its way is not waited for.
      Connection: "close",
    },
    body,
  };
};

export const refuseRequest = (response: ServerResponse, thrown: unknown): void => {
  if (response.headersSent) return void response.destroy();
  const { status, headers, body } = answerOf(thrown);
  response.writeHead(status, headers).end(body);
};

/** To a connection that has no response: a CONNECT, or what was no request. */
export const refuseConnection = (socket: Duplex, thrown: unknown, status?: number): void => {
  if (socket.destroyed || !socket.writable) return void socket.destroy();
  const answer = answerOf(thrown);
  const lines = Object.entries(answer.headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status ?? answer.status} Refused\r\n${lines.join("")}\r\n${answer.body}`);
  // Nobody reads what is still on its way, and its end is waited for.
  socket.resume();
};

/** A response on a connection that has left its server by asking for an upgrade. */
export const responseOn = (request: IncomingMessage, socket: Duplex): ServerResponse => {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  // Any duplex serves, as it does for the server.
  response.assignSocket(socket as never);
  response.once("finish", () => socket.end());
  return response;
};
