/**
 * The HTTP proxy of a VM with secrets. TLS ends here only for hosts that a secret is for; a tunnel to any other is passed through as it is. Every
 * connection outwards is judged by the rules of the VM's network.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { isIPv4, type Socket } from "node:net";
import { type Duplex, pipeline } from "node:stream";
import { TLSSocket } from "node:tls";
import { BangerError, toBangerError } from "../../contract/errors.ts";
import { quoted } from "../../contract/names.ts";
import { formatHostPort } from "../../contract/ports.ts";
import { formatSecretHost, type SecretHost } from "../../contract/secret-text.ts";
import type { Tell, Whose } from "../network/told.ts";
import type { Authority } from "./authority.ts";
import { type Client, forward, newClient, type Upstream } from "./forward.ts";
import { isSecretsHost } from "./put-in.ts";
import { refuseConnection, refuseRequest, responseOn } from "./refusal.ts";
import { checkHost, plainTarget, tunnelTarget } from "./target.ts";

/** Bytes of a request's headers. */
const HEADERS_MAX = 64 * 1024;
/** How long a connection may be without a whole request, in ms. */
const IDLE_LIMIT = 60_000;

/** Of a connection, for one event. */
const LISTENERS_MAX = 32;

export type Proxy = {
  /**
   * Owns the connection.
   * @param whose which process of the guest it is of, for the network log
   */
  serve(connection: Duplex, whose?: Whose): void;
  close(): void;
};

export type ProxyParts = Upstream & {
  authority: Authority;
  /** Writes the VM's network log. */
  tell: Tell;
  /** In place of 60 s. */
  idleLimit?: number;
};

/** Of one connection of the guest's. */
type Session = {
  client: Client & { close(): void };
  whose: Whose | undefined;
  /** Where it leads, once TLS has ended here; undefined of one whose requests name it. */
  to: SecretHost | undefined;
  /** Why nothing goes through it. */
  problem: BangerError | undefined;
  /** A request begins or ends; a connection without one ends after a while. */
  busy(isBusy: boolean): void;
};

export const secretsProxy = (parts: ProxyParts): Proxy => {
  const { authority, outgoing, secrets, tell, idleLimit = IDLE_LIMIT } = parts;
  const sessions = new WeakMap<Duplex, Session>();
  const connections = new Set<Duplex>();

  /** Every connection here, and what lies in one: an error of it is its end, and nobody else's. */
  const begin = (connection: Duplex, whose: Whose | undefined, to?: SecretHost, first?: Socket): Session => {
    const client = newClient(parts, whose, first);
    let timer: NodeJS.Timeout | undefined;
    let underWay = 0;
    const restart = () => {
      clearTimeout(timer);
      if (underWay === 0 && !connection.destroyed) timer = setTimeout(() => connection.destroy(), idleLimit);
    };
    const busy = (isBusy: boolean) => {
      // A client may send its next request before it has the answer to the last.
      underWay += isBusy ? 1 : -1;
      restart();
    };
    const session: Session = { client, whose, to, problem: undefined, busy };
    sessions.set(connection, session);
    // As many as two pipelines and what watches over them add.
    connection.setMaxListeners(LISTENERS_MAX);
    connections.add(connection);
    connection.on("error", () => connection.destroy());
    connection.once("close", () => {
      clearTimeout(timer);
      client.close();
      connections.delete(connection);
    });
    restart();
    return session;
  };
  const sessionOf = (socket: Duplex): Session => {
    const found = sessions.get(socket);
    if (!found) throw new BangerError("INTERNAL", "a request on a connection that nobody knows");
    return found;
  };

  /** What a rule of the network has refused is written down already. */
  const note = async (thrown: unknown, to: SecretHost | undefined, whose: Whose | undefined): Promise<void> => {
    const { code, message } = toBangerError(thrown);
    if (code !== "SECRET_REFUSED") return;
    await tell({ what: `refused http ${to ? formatHostPort(to.name, to.port) : "?:0"}`, rule: message, whose });
  };

  const handle = async (
    request: IncomingMessage,
    response: ServerResponse,
    session: Session,
    upgrade?: { socket: Duplex; head: Buffer },
  ): Promise<void> => {
    let to = session.to;
    try {
      if (session.problem) throw session.problem;
      let path = request.url ?? "/";
      if (to) {
        checkHost(request, to);
        if (!/^(?:\/|\*$)/.test(path))
          throw new BangerError("INVALID_REQUEST", "a request in a tunnel names a path, not a whole address");
      } else ({ to, path } = plainTarget(request));
      await forward({ request, response, to, path }, session.client, parts, upgrade);
    } catch (error) {
      await note(error, to, session.whose);
      refuseRequest(response, error);
    }
  };

  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const session = sessionOf(request.socket);
    session.busy(true);
    response.once("close", () => session.busy(false));
    request.on("error", () => undefined);
    void handle(request, response, session);
  };
  const onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    const session = sessionOf(socket);
    session.busy(true);
    const response = responseOn(request, socket);
    response.once("finish", () => session.busy(false));
    void handle(request, response, session, { socket, head });
  };
  const onClientError = (error: Error, socket: Duplex): void => {
    const tooLong = "code" in error && error.code === "HPE_HEADER_OVERFLOW";
    const why = tooLong ? `its headers are over ${HEADERS_MAX} bytes` : "it is not understood";
    refuseConnection(
      socket,
      new BangerError("INVALID_REQUEST", `the request is no HTTP/1.1: ${why}`),
      tooLong ? 431 : 400,
    );
  };

  const httpServer = (): Server => {
    // Idle connections are ended here: a connection that is no socket has no timeout of Node's.
    const limits = { maxHeaderSize: HEADERS_MAX, requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 0 };
    const server = createServer(limits, onRequest);
    // A client that has said all it has to say still hears the answer. Node has it as a field of the server only.
    Object.assign(server, { httpAllowHalfOpen: true });
    server.on("upgrade", onUpgrade);
    server.on("clientError", onClientError);
    return server;
  };
  const outer = httpServer();
  /** Of what comes out of TLS. */
  const inner = httpServer();
  inner.on("connect", (_request: IncomingMessage, socket: Duplex) =>
    refuseConnection(socket, new BangerError("INVALID_REQUEST", "a tunnel in a tunnel is not made")),
  );

  const ESTABLISHED = "HTTP/1.1 200 Connection established\r\n\r\n";

  const passThrough = (socket: Duplex, server: Socket): void => {
    server.setMaxListeners(LISTENERS_MAX);
    const over = (error: NodeJS.ErrnoException | null) => {
      if (!error) return;
      socket.destroy();
      server.destroy();
    };
    pipeline(socket, server, over);
    pipeline(server, socket, over);
  };

  const endTls = (socket: Duplex, whose: Whose | undefined, to: SecretHost, first: Socket): void => {
    const secure = new TLSSocket(socket, {
      isServer: true,
      secureContext: authority.contextFor(to.name),
      ALPNProtocols: ["http/1.1"],
    });
    const session = begin(secure, whose, to, first);
    socket.once("close", () => secure.destroy());
    secure.once("secure", () => {
      // Of an address there is none.
      const named = secure.servername;
      const agrees = isIPv4(to.name) ? !named : named && named.toLowerCase() === to.name;
      if (!agrees)
        session.problem = new BangerError(
          "SECRET_REFUSED",
          `the TLS of this connection is for ${named ? quoted(named) : "no name"}, and goes to ${formatSecretHost(to)}`,
          { hint: "connect to the host that it names", details: { host: to.name, port: to.port } },
        );
      inner.emit("connection", secure);
    });
  };

  outer.on("connect", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const session = sessionOf(socket);
    session.busy(true);
    const gone = new AbortController();
    socket.once("close", () => gone.abort());
    const connect = async (): Promise<void> => {
      const to = tunnelTarget(request);
      const server = await outgoing.connect(to.name, to.port, gone.signal, session.whose);
      if (gone.signal.aborted) return void server.destroy();
      socket.once("close", () => server.destroy());
      socket.write(ESTABLISHED);
      if (head.length > 0) socket.unshift(head);
      if (isSecretsHost(secrets(), to)) endTls(socket, session.whose, to, server);
      else passThrough(socket, server);
    };
    connect().catch((error: unknown) => {
      session.busy(false);
      refuseConnection(socket, error);
    });
  });

  return {
    serve: (connection, whose) => {
      begin(connection, whose);
      outer.emit("connection", connection);
    },
    close: () => {
      for (const connection of connections) connection.destroy();
    },
  };
};
