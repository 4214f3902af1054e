/** One request on its way to a server, and the answer on its way back. */
import {
  Agent,
  type IncomingMessage,
  request as httpRequest,
  type RequestOptions,
  type ServerResponse,
} from "node:http";
import { isIPv4, type Socket } from "node:net";
import { type Duplex, pipeline } from "node:stream";
import { connect as connectTls, type SecureContext, type TLSSocket } from "node:tls";
import { BangerError } from "../../contract/errors.ts";
import { isFor, type SecretHost } from "../../contract/secret-text.ts";
import type { Outgoing } from "../network/outgoing.ts";
import type { Whose } from "../network/told.ts";
import { type Mask, maskText, masking, masksFor } from "./mask.ts";
import { isSecretsHost, type KnownSecret, putIn } from "./put-in.ts";

export type Upstream = {
  secrets(): readonly KnownSecret[];
  outgoing: Outgoing;
  /** Whom servers must be vouched for by. */
  roots(): SecureContext;
};

/** Of a connection of the guest's: its requests go out one by one, over one connection to each server, which ends with it. */
export type Client = {
  agent: Agent;
  /** Tokens that were sent for it, made of values: a server may repeat them. */
  sent: Map<string, string>;
};

/** How long a TLS handshake may take, in ms. */
const HANDSHAKE_LIMIT = 20_000;

const overTls = (socket: Socket, host: string, context: SecureContext, signal: AbortSignal): Promise<TLSSocket> =>
  new Promise((resolve, reject) => {
    const secure = connectTls({
      socket,
      host,
      ...(isIPv4(host) ? {} : { servername: host }),
      secureContext: context,
      ALPNProtocols: ["http/1.1"],
    });
    const timer = setTimeout(() => secure.destroy(new Error("its TLS does not answer")), HANDSHAKE_LIMIT);
    const abort = () => secure.destroy(new Error("nobody waits for it any more"));
    signal.addEventListener("abort", abort, { once: true });
    const settle = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    };
    secure.once("secureConnect", () => {
      settle();
      resolve(secure);
    });
    secure.on("error", (error) => {
      settle();
      socket.destroy();
      reject(
        new BangerError("UPSTREAM_FAILED", `${host}: ${error.message}`, {
          hint: "servers are checked with this machine's certificates",
          cause: error,
        }),
      );
    });
  });

/**
 * @param whose which process of the guest it is of
 * @param first a connection that has been made already, for the first request
 */
export const newClient = (upstream: Upstream, whose?: Whose, first?: Socket): Client & { close(): void } => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const over = new AbortController();
  let ready = first;
  const open = async ({ host, port, plain }: { host: string; port: number; plain: boolean }): Promise<Duplex> => {
    const made = ready;
    ready = undefined;
    const socket = made && !made.destroyed ? made : await upstream.outgoing.connect(host, port, over.signal, whose);
    return plain ? socket : await overTls(socket, host, upstream.roots(), over.signal);
  };
  // Node's agent takes the connection by its callback where none is returned.
  agent.createConnection = (options, callback) => {
    const { host, port, plain } = options as RequestOptions & { plain: boolean };
    open({ host: String(host), port: Number(port), plain }).then(
      (socket) => callback?.(null, socket),
      (error: Error) => callback?.(error, undefined as never),
    );
    return undefined;
  };
  return {
    agent,
    sent: new Map(),
    close: () => {
      over.abort();
      agent.destroy();
      ready?.destroy();
    },
  };
};

/** They concern one connection, and each of ours has its own (RFC 9110, 7.6.1). */
const HOP_BY_HOP = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** Name, value, name, value: without those that stop here, and those that `Connection` names. */
const passedOn = ({ rawHeaders, headers }: IncomingMessage, ...stopped: readonly string[]): string[] => {
  const named = (headers.connection ?? "").split(",").map((name) => name.trim().toLowerCase());
  const stops = new Set([...HOP_BY_HOP, ...named, ...stopped]);
  return rawHeaders.flatMap((name, index) =>
    index % 2 === 0 && !stops.has(name.toLowerCase()) ? [name, rawHeaders[index + 1] ?? ""] : [],
  );
};

/** What the server must not tell the guest: values that it may have been sent, now or earlier. */
const masksOf = (to: SecretHost, secrets: readonly KnownSecret[], { sent }: Client): Mask[] => {
  const values = secrets.flatMap(({ hosts, value, placeholder }) =>
    value !== undefined && hosts.some((host) => isFor(host, to)) ? [{ value, placeholder }] : [],
  );
  // Of what is among both the placeholder itself counts.
  return masksFor([...[...sent].map(([value, placeholder]) => ({ value, placeholder })), ...values]);
};

/** Tokens of one connection that are remembered. */
const SENT_MAX = 64;

const remember = ({ sent }: Client, tokens: readonly string[]): void => {
  for (const token of tokens) if (sent.size < SENT_MAX) sent.set(token, "banger_secret_");
};

/** Methods that have no body unless they say so. */
const BODILESS = new Set(["GET", "HEAD", "DELETE", "OPTIONS", "TRACE"]);

/** How long the body is, said in a way that leaves Node nothing to choose. */
const framing = ({ headers, method = "GET" }: IncomingMessage): string[] => {
  if (headers["transfer-encoding"] !== undefined) return ["Transfer-Encoding", "chunked"];
  // A length that is there is passed on as it came.
  return headers["content-length"] !== undefined || BODILESS.has(method) ? [] : ["Content-Length", "0"];
};

const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;

/**
 * @param socket where the request asks for an upgrade: what becomes of the connection
 * @throws SECRET_REFUSED, NET_REFUSED, UPSTREAM_FAILED; then nothing has been answered
 */
export const forward = async (
  { request, response, to, path }: { request: IncomingMessage; response: ServerResponse; to: SecretHost; path: string },
  client: Client,
  upstream: Upstream,
  upgrade?: { socket: Duplex; head: Buffer },
): Promise<void> => {
  const secrets = upstream.secrets();
  const known = isSecretsHost(secrets, to);
  // What comes back compressed could not be looked through.
  const own = passedOn(request, "expect", ...(known ? ["accept-encoding"] : []));
  const { headers, sent } = putIn(own, path, to, secrets);
  remember(client, sent);
  headers.push(...framing(request));
  if (known) headers.push("Accept-Encoding", "identity");
  if (upgrade) headers.push("Connection", "Upgrade", "Upgrade", request.headers.upgrade ?? "");
  const masks = known ? masksOf(to, secrets, client) : [];
  const options: RequestOptions & { plain: boolean } = {
    agent: client.agent,
    host: to.name,
    port: to.port,
    plain: to.plain,
    method: request.method ?? "GET",
    path,
    headers,
    setHost: false,
  };
  const outwards = httpRequest(options);
  await new Promise<void>((resolve, reject) => {
    let whole = false;
    const gone = () => {
      // What is over on both sides may serve the next request.
      if (!whole || !outwards.writableFinished) outwards.destroy();
      resolve();
    };
    response.once("close", gone);
    outwards.once("error", (error) => {
      // As the server itself does to a connection that it has let go of; the client then tries again by itself.
      if (outwards.reusedSocket && !response.headersSent) request.socket.destroy();
      reject(
        error instanceof BangerError
          ? error
          : new BangerError("UPSTREAM_FAILED", `${to.name}: ${error.message}`, { cause: error }),
      );
    });
    outwards.once("response", (answer) => {
      answer.once("end", () => {
        whole = true;
      });
      try {
        relay(answer, response, masks);
      } catch (error) {
        // A server whose headers cannot be passed on.
        answer.destroy();
        reject(error);
      }
    });
    outwards.once("upgrade", (answer: IncomingMessage, socket: Socket, head: Buffer) => {
      response.off("close", gone);
      if (!upgrade) {
        socket.destroy();
        return reject(new BangerError("UPSTREAM_FAILED", `${to.name} changes the protocol without being asked`));
      }
      joinUpgraded(answer, socket, head, upgrade, masks);
      resolve();
    });
    if (hasBody(request)) request.pipe(outwards);
    else outwards.end();
  });
};

const maskedHeaders = (headers: readonly string[], masks: readonly Mask[]): string[] =>
  headers.map((text, index) => (index % 2 === 0 ? text : maskText(text, masks)));

const relay = (answer: IncomingMessage, response: ServerResponse, masks: readonly Mask[]): void => {
  response.sendDate = false;
  const status = answer.statusCode ?? 502;
  response.writeHead(status, maskText(answer.statusMessage ?? "", masks), maskedHeaders(passedOn(answer), masks));
  // Events of a server are told as they happen, the first of them too.
  response.flushHeaders();
  const failed = (error: Error | null | undefined) => {
    if (error) response.destroy();
  };
  if (masks.length > 0) pipeline(answer, masking(masks), response, failed);
  else pipeline(answer, response, failed);
};

/** From here on these are bytes of another protocol: WebSocket, as a rule. */
const joinUpgraded = (
  answer: IncomingMessage,
  server: Duplex,
  head: Buffer,
  { socket, head: early }: { socket: Duplex; head: Buffer },
  masks: readonly Mask[],
): void => {
  const headers = maskedHeaders(answer.rawHeaders, masks);
  const lines = headers.flatMap((name, index) => (index % 2 === 0 ? [`${name}: ${headers[index + 1]}\r\n`] : []));
  socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join("")}\r\n`, "latin1");
  if (head.length > 0) server.unshift(head);
  if (early.length > 0) server.write(early);
  const over = () => {
    socket.destroy();
    server.destroy();
  };
  pipeline(server, masking(masks), socket, (error) => error && over());
  pipeline(socket, server, (error) => error && over());
};
