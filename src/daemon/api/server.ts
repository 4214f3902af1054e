/** HTTP/1.1 on the daemon's unix socket: routes, guards, and the three kinds of endpoint. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { Server as SocketServer } from "node:net";
import type { Duplex } from "node:stream";
import * as z from "zod/mini";
import {
  type Api,
  type ApiName,
  api,
  BUILD_HEADER,
  type EndpointsOf,
  type OperationLine,
  type ParamsOf,
  type RequestOf,
  type ResultOf,
  STREAM_PROTOCOL,
} from "../../contract/api.ts";
import { BangerError, errorTable, toBangerError, toErrorBody } from "../../contract/errors.ts";
import type { Progress } from "../../contract/progress.ts";
import type { Log } from "../log.ts";
import type { Operations } from "../operations.ts";
import { type ClientStream, clientStream } from "./client-stream.ts";

const MAX_BODY = 1024 * 1024;

type Call<N extends ApiName> = { params: ParamsOf<N>; request: RequestOf<N> };
/** One function for each endpoint of the contract. */
export type Handlers = { [N in EndpointsOf<"json">]: (call: Call<N>) => ResultOf<N> | Promise<ResultOf<N>> } & {
  [N in EndpointsOf<"operation">]: {
    what(call: Call<N>): string;
    run(call: Call<N>, progress: Progress): Promise<ResultOf<N>>;
  };
} & {
  /** Ends the stream itself, with `close`; what it throws is sent as the error. */
  [N in EndpointsOf<"stream">]: (call: Call<N>, client: ClientStream) => Promise<void>;
};

type AnyCall = { params: Record<string, string>; request: unknown };
type AnyHandler =
  | ((call: AnyCall, client?: ClientStream) => unknown)
  | { what(call: AnyCall): string; run(call: AnyCall, progress: Progress): Promise<unknown> };

type Route = { name: ApiName; endpoint: Api[ApiName]; pattern: RegExp; keys: string[] };

const routes: Route[] = (Object.entries(api) as [ApiName, Api[ApiName]][]).map(([name, endpoint]) => {
  const keys: string[] = [];
  const pattern = endpoint.path.replaceAll(/:(\w+)/g, (_, key: string) => {
    keys.push(key);
    return "([^/]+)";
  });
  return { name, endpoint, pattern: new RegExp(`^${pattern}$`), keys };
});

const match = (request: IncomingMessage): { route: Route; params: Record<string, string> } => {
  const path = (request.url ?? "/").split("?")[0] ?? "/";
  for (const route of routes) {
    const found = route.endpoint.method === request.method ? route.pattern.exec(path) : null;
    if (found)
      return {
        route,
        params: Object.fromEntries(route.keys.map((key, index) => [key, decodeURIComponent(found[index + 1] ?? "")])),
      };
  }
  throw new BangerError("INVALID_REQUEST", `there is no ${request.method} ${path} in this daemon's API`);
};

const validate = (route: Route, value: unknown): unknown => {
  const parsed = z.safeParse(route.endpoint.request, value ?? {});
  if (parsed.success) return parsed.data;
  throw new BangerError(
    "INVALID_REQUEST",
    `the request for ${route.name} is not valid: ${z.prettifyError(parsed.error)}`,
  );
};

const readBody = async (request: IncomingMessage): Promise<unknown> => {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY) throw new BangerError("INVALID_REQUEST", "the request is over 1 MiB");
    chunks.push(chunk);
  }
  if (size === 0) return {};
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch (error) {
    throw new BangerError("INVALID_REQUEST", "the request is not JSON", { cause: error });
  }
};

/** A browser page must not reach the daemon, whatever forwards its socket. */
const refuseBrowsers = (request: IncomingMessage): void => {
  if (request.headers.origin !== undefined)
    throw new BangerError("INVALID_REQUEST", "requests from web pages are refused");
};

export type ServerOptions = {
  handlers: Handlers;
  operations: Operations;
  build: string;
  log: Log;
  /** Done before each request is carried out. */
  prepare(): Promise<void>;
  /** The daemon is about to end: what comes on connections that are still open is left for the next one. */
  ending?(): boolean;
};

export const apiServer = ({
  handlers,
  operations,
  build,
  log,
  prepare,
  ending = () => false,
}: ServerOptions): Server => {
  const answer = (response: ServerResponse, status: number, body: unknown) => {
    const text = JSON.stringify(body);
    response.writeHead(status, {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(text),
      [BUILD_HEADER]: build,
    });
    response.end(text);
  };

  const runOperation = async (handler: Extract<AnyHandler, object>, call: AnyCall, response: ServerResponse) => {
    if (!("run" in handler)) throw new BangerError("INTERNAL", "an operation without its two parts");
    const gone = new AbortController();
    response.once("close", () => {
      if (!response.writableFinished) gone.abort();
    });
    response.writeHead(200, { "content-type": "application/x-ndjson", [BUILD_HEADER]: build });
    const line = (value: OperationLine) => void response.write(`${JSON.stringify(value)}\n`);
    try {
      const watch = {
        started: (operation: { id: string; what: string; startedAt: number }) => line({ operation }),
        progress: (progress: Parameters<Progress["report"]>[0]) => line({ progress }),
      };
      line({
        result: await operations.run(handler.what(call), watch, (progress) => handler.run(call, progress), gone.signal),
      });
    } catch (error) {
      line({ error: toErrorBody(error) });
    }
    response.end();
  };

  const onRequest = async (request: IncomingMessage, response: ServerResponse) => {
    refuseBrowsers(request);
    const { route, params } = match(request);
    const call = { params, request: validate(route, await readBody(request)) };
    const handler = handlers[route.name] as AnyHandler;
    if (route.endpoint.kind === "stream")
      throw new BangerError("INVALID_REQUEST", `${route.name} needs an upgrade to ${STREAM_PROTOCOL}`);
    await prepare();
    if (typeof handler === "object") return runOperation(handler, call, response);
    answer(response, 200, (await handler(call)) ?? {});
  };

  const fail = (response: ServerResponse, thrown: unknown) => {
    const error = toBangerError(thrown);
    if (errorTable[error.code].owner === "bug") log.error("request failed", { error: thrown });
    if (response.headersSent) response.destroy();
    else answer(response, errorTable[error.code].http, toErrorBody(error));
  };

  const onUpgrade = async (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    refuseBrowsers(request);
    const { route, params } = match(request);
    if (route.endpoint.kind !== "stream") throw new BangerError("INVALID_REQUEST", `${route.name} is no stream`);
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${STREAM_PROTOCOL}\r\n${BUILD_HEADER}: ${build}\r\n\r\n`,
    );
    const client = clientStream(socket, head);
    const handler = handlers[route.name] as (call: AnyCall, client: ClientStream) => Promise<void>;
    try {
      const call = { params, request: validate(route, await client.request) };
      await prepare();
      await handler(call, client);
    } catch (error) {
      if (errorTable[toBangerError(error).code].owner === "bug")
        log.error("stream failed", { endpoint: route.name, error });
      client.closeWithError(error);
    }
  };

  const server = createServer((request, response) => {
    if (ending()) return void request.socket.destroy();
    onRequest(request, response).catch((error: unknown) => fail(response, error));
  });
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    // Taken over by `clientStream`; until then a reset connection is nobody's concern.
    socket.on("error", () => socket.destroy());
    if (ending()) return void socket.destroy();
    onUpgrade(request, socket, head).catch((error: unknown) => {
      const body = JSON.stringify(toErrorBody(error));
      const { http } = errorTable[toBangerError(error).code];
      socket.end(
        `HTTP/1.1 ${http} Error\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${BUILD_HEADER}: ${build}\r\nConnection: close\r\n\r\n${body}`,
      );
    });
  });
  return server;
};

/**
 * Takes no connections any more. Those that are open stay, idle ones too, which Node's own `close` of an HTTP server ends: by the end of one a client
 * knows that the daemon has let go of its state.
 */
export const stopAccepting = (server: Server): void => void SocketServer.prototype.close.call(server);
