/**
 * `http://PORT.NAME.localhost:PROXYPORT`: a reverse proxy on a loopback address, to any port of any VM. Every request is checked by its Host, so that
 * a page whose own name leads to 127.0.0.1 (DNS rebinding) gets nowhere, and by its Origin, so that pages of other sites do not either.
 */
import { createServer, type IncomingMessage, request as httpRequest, type ServerResponse } from "node:http";
import { isIP, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { BangerError, errorTable, toBangerError } from "../../contract/errors.ts";
import { guestDuplex } from "../../guest/dial.ts";
import type { GuestStream } from "../../guest/stream.ts";
import { joinTcp, type Listening } from "./tcp.ts";

/** @throws VM_NOT_FOUND, VM_STOPPED, GUEST_ERROR where nothing listens */
export type Connect = (vm: string, port: number, signal: AbortSignal) => Promise<GuestStream>;

type Target = { vm: string; port: number };

const refused = (message: string, hint: string): BangerError => new BangerError("INVALID_REQUEST", message, { hint });

/** @throws INVALID_REQUEST for what is not for a VM, or comes from a page of elsewhere */
export const targetOf = (host: string | undefined, origin: string | undefined): Target => {
  const match = /^(\d{1,5})\.([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)\.localhost(?::\d+)?$/i.exec(host ?? "");
  const port = Number(match?.[1]);
  if (!match?.[2] || port < 1 || port > 65535)
    throw refused(
      "this address leads to no VM",
      "open http://PORT.NAME.localhost, with the port of this address behind it",
    );
  if (origin !== undefined && !isLocal(origin))
    throw refused("a page of another site must not reach a VM", "open the VM's address itself");
  return { vm: match[2].toLowerCase(), port };
};

const isLocal = (origin: string): boolean => {
  if (!URL.canParse(origin)) return false;
  const { hostname } = new URL(origin);
  if (hostname === "localhost" || hostname.endsWith(".localhost") || hostname === "[::1]") return true;
  return isIP(hostname) === 4 && hostname.startsWith("127.");
};

/** They concern one connection, and each of ours has its own (RFC 9110, 7.6.1). */
const HOP_BY_HOP = new Set(["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"]);

/** Name, value, name, value: without those that stop here, and those that `Connection` names. */
const passedOn = ({ rawHeaders, headers }: IncomingMessage): string[] => {
  const named = (headers.connection ?? "").split(",").map((name) => name.trim().toLowerCase());
  const stops = new Set([...HOP_BY_HOP, ...named]);
  return rawHeaders.flatMap((name, index) =>
    index % 2 === 0 && !stops.has(name.toLowerCase()) ? [name, rawHeaders[index + 1] ?? ""] : [],
  );
};

const forwarded = ({ headers, socket }: IncomingMessage): string[] => [
  "X-Forwarded-For",
  socket.remoteAddress ?? "",
  "X-Forwarded-Host",
  headers.host ?? "",
  "X-Forwarded-Proto",
  "http",
];

const statusOf = (error: BangerError): number => (error.code === "GUEST_ERROR" ? 502 : errorTable[error.code].http);

const explain = (thrown: unknown): { status: number; text: string } => {
  const error = toBangerError(thrown);
  return { status: statusOf(error), text: `banger: ${error.message}\n${error.hint ? `${error.hint}\n` : ""}` };
};

const proxyRequest = async (request: IncomingMessage, response: ServerResponse, connect: Connect): Promise<void> => {
  const { vm, port } = targetOf(request.headers.host, request.headers.origin);
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  const stream = await reach(connect, { vm, port }, gone.signal);
  const upstream = httpRequest({
    createConnection: () => guestDuplex(stream) as Socket,
    method: request.method,
    path: request.url,
    headers: [...passedOn(request), ...forwarded(request)],
    setHost: false,
    signal: gone.signal,
  });
  await new Promise<void>((resolve, reject) => {
    upstream.once("error", reject);
    response.once("close", resolve);
    upstream.once("response", (answer) => {
      answer.once("error", () => response.destroy());
      response.writeHead(answer.statusCode ?? 502, answer.statusMessage, passedOn(answer));
      // Events of a server are told as they happen, the first of them too.
      response.flushHeaders();
      answer.pipe(response);
    });
    request.pipe(upstream);
  });
};

const reach = async (connect: Connect, { vm, port }: Target, signal: AbortSignal): Promise<GuestStream> => {
  try {
    return await connect(vm, port, signal);
  } catch (error) {
    if (!(error instanceof BangerError) || error.code !== "GUEST_ERROR") throw error;
    throw new BangerError("GUEST_ERROR", `nothing listens on port ${port} of VM ${vm}`, {
      hint: `see what does: banger vm ports ${vm}`,
      cause: error,
    });
  }
};

/** From the answer on these are bytes of another protocol: WebSocket, as a rule. */
const proxyUpgrade = async (
  request: IncomingMessage,
  socket: Socket,
  head: Buffer,
  connect: Connect,
): Promise<void> => {
  const target = targetOf(request.headers.host, request.headers.origin);
  const gone = new AbortController();
  socket.once("close", () => gone.abort());
  const stream = await reach(connect, target, gone.signal);
  const headers = [...request.rawHeaders, ...forwarded(request)];
  const lines = headers.flatMap((name, index) => (index % 2 === 0 ? [`${name}: ${headers[index + 1]}`] : []));
  stream.input.write(`${request.method} ${request.url} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`);
  if (head.length > 0) stream.input.write(head);
  await joinTcp(socket, stream);
};

/**
 * @throws the system's error: EADDRINUSE, EACCES, EADDRNOTAVAIL
 */
export const listenWeb = async (address: string, port: number, connect: Connect): Promise<Listening> => {
  const sockets = new Set<Duplex>();
  const server = createServer({ requestTimeout: 0, noDelay: true }, (request, response) => {
    proxyRequest(request, response, connect).catch((error: unknown) => {
      if (response.headersSent) return void response.destroy();
      const { status, text } = explain(error);
      // What of a body is still on its way is not waited for.
      response.writeHead(status, { "content-type": "text/plain; charset=utf-8", connection: "close" }).end(text);
    });
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    socket.on("error", () => socket.destroy());
    proxyUpgrade(request, socket, head, connect).catch((error: unknown) => {
      const { status, text } = explain(error);
      socket.end(
        `HTTP/1.1 ${status} Refused\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
      );
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: address, port, exclusive: true }, resolve);
  });
  const bound = server.address();
  return {
    port: typeof bound === "object" && bound !== null ? bound.port : port,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
};
