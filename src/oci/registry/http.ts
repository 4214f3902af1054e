/** HTTP as registries speak it: redirects that cannot carry credentials away, TLS that says what is wrong, and no wait without an end. */
import { Agent, type IncomingHttpHeaders, type IncomingMessage, request as httpRequest } from "node:http";
import { Agent as TlsAgent, request as httpsRequest } from "node:https";
import { getCACertificates } from "node:tls";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { abortError, throwIfAborted } from "../../contract/progress.ts";

export type HttpRequest = {
  url: URL;
  headers?: Record<string, string>;
  /** Makes it a POST. */
  form?: URLSearchParams;
  /** Plain HTTP and any certificate will do: the user has said so of this host, or it is this machine. */
  insecure: boolean;
  signal: AbortSignal;
};

export type HttpResponse = { status: number; headers: IncomingHttpHeaders; body: IncomingMessage; url: URL };

export type Http = {
  /**
   * Sends a request and follows redirects.
   * @throws REGISTRY_UNREACHABLE, the signal's error
   */
  send(request: HttpRequest): Promise<HttpResponse>;
};

export type HttpOptions = {
  /** No byte for so long means that nothing will come any more, in ms. */
  idleLimit?: number;
};

const IDLE_LIMIT = 30_000;
const MOST_REDIRECTS = 8;

export const http = ({ idleLimit = IDLE_LIMIT }: HttpOptions = {}): Http => {
  const shared = { keepAlive: true, maxSockets: 8, timeout: idleLimit };
  const proxied = { ...shared, proxyEnv: process.env };
  const plain = new Agent(proxied);
  let strict: TlsAgent | undefined;
  let lax: TlsAgent | undefined;
  const agentFor = (url: URL, insecure: boolean): Agent | TlsAgent => {
    if (url.protocol === "http:") return plain;
    if (insecure) {
      lax ??= new TlsAgent({ ...proxied, rejectUnauthorized: false });
      return lax;
    }
    // A company's own authority is in the system's store, not in Node's.
    strict ??= new TlsAgent({ ...proxied, ca: [...getCACertificates("default"), ...getCACertificates("system")] });
    return strict;
  };

  const once = ({ url, headers = {}, form, insecure, signal }: HttpRequest): Promise<HttpResponse> =>
    new Promise((resolve, reject) => {
      throwIfAborted(signal);
      const send = url.protocol === "https:" ? httpsRequest : httpRequest;
      const body = form?.toString();
      const outgoing = send(url, {
        method: body === undefined ? "GET" : "POST",
        agent: agentFor(url, insecure),
        headers: {
          "user-agent": "banger",
          ...headers,
          ...(body === undefined ? {} : { "content-type": "application/x-www-form-urlencoded" }),
        },
        signal,
      });
      outgoing.setTimeout(idleLimit, () =>
        outgoing.destroy(new BangerError("REGISTRY_UNREACHABLE", `${url.host} sent nothing for ${idleLimit / 1000} s`)),
      );
      outgoing.once("error", (error) => reject(signal.aborted ? abortError(signal) : unreachable(url, error)));
      outgoing.once("response", (response) => {
        // What breaks later is met by whoever reads the body.
        response.on("error", () => undefined);
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: response, url });
      });
      outgoing.end(body);
    });

  const send: Http["send"] = async (first) => {
    let request = first;
    for (let redirects = 0; ; redirects++) {
      const response = await once(request);
      const { location } = response.headers;
      if (![301, 302, 303, 307, 308].includes(response.status) || location === undefined || request.form)
        return response;
      response.body.destroy();
      if (redirects === MOST_REDIRECTS) throw failed(first.url, `redirects over ${MOST_REDIRECTS} times`);
      request = redirected(request, location);
    }
  };
  return { send };
};

const redirected = (request: HttpRequest, location: string): HttpRequest => {
  const from = request.url;
  const url = URL.parse(location, from);
  if (url === null || !/^https?:$/.test(url.protocol))
    throw failed(from, `redirects to ${JSON.stringify(location.slice(0, 200))}`);
  if (from.protocol === "https:" && url.protocol === "http:" && !request.insecure)
    throw failed(from, `redirects from HTTPS to plain HTTP (${url.host})`);
  if (url.origin === from.origin) return { ...request, url };
  const { authorization, ...headers } = request.headers ?? {};
  // What holds for one host does not hold for the one it sends us to.
  return {
    ...request,
    url,
    headers,
    insecure: request.insecure && url.hostname === from.hostname ? true : url.protocol === "http:" && request.insecure,
  };
};

const failed = (url: URL, why: string): BangerError =>
  new BangerError("REGISTRY_ERROR", `${url.host} ${why}`, {
    hint: "try again later, or name another registry or mirror",
  });

const reasons: Record<string, string> = {
  ENOTFOUND: "there is no host of that name",
  EAI_AGAIN: "its name cannot be resolved now",
  ECONNREFUSED: "it refuses the connection",
  ECONNRESET: "it broke off the connection",
  EHOSTUNREACH: "there is no route to it",
  ENETUNREACH: "there is no network",
  ETIMEDOUT: "it does not answer",
};

const isTlsError = (code: string): boolean =>
  /^(?:CERT_|ERR_TLS_|ERR_SSL_|EPROTO$|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH)/.test(code);

const unreachable = (url: URL, error: Error): BangerError => {
  if (error instanceof BangerError) return error;
  const inner = error instanceof AggregateError && error.errors[0] instanceof Error ? error.errors[0] : error;
  const code = errnoOf(error) ?? errnoOf(inner) ?? "";
  if (isTlsError(code)) {
    return new BangerError(
      "REGISTRY_UNREACHABLE",
      `no secure connection to ${url.host}: ${inner.message.split("\n")[0]}`,
      {
        hint: `install its certificate authority on this machine; for a registry without TLS add "${url.host}" to insecure_registries in config.toml`,
        details: { host: url.host, code },
        cause: error,
      },
    );
  }
  return new BangerError("REGISTRY_UNREACHABLE", `cannot reach ${url.host}: ${reasons[code] ?? inner.message}`, {
    hint: "check the name and the network, and run the command again",
    details: { host: url.host, code },
    cause: error,
  });
};

/** Whether an error says that the other side does not speak TLS, or does not listen. */
export const isNoTls = (error: unknown): boolean =>
  error instanceof BangerError &&
  error.code === "REGISTRY_UNREACHABLE" &&
  /^(?:EPROTO|ECONNRESET|ECONNREFUSED|ERR_SSL_.*)$/.test(String(error.details?.code));

/**
 * The whole body, up to a limit.
 * @throws REGISTRY_ERROR when it is longer; REGISTRY_UNREACHABLE when it breaks off
 */
export const readBody = async (
  { body, headers, url }: HttpResponse,
  limit: number,
  signal: AbortSignal,
): Promise<Buffer> => {
  const tooLong = () =>
    new BangerError(
      "REGISTRY_ERROR",
      `the answer of ${url.host} has over ${limit} bytes, more than anything of its kind has`,
      {
        hint: "the registry is broken or hostile; name another",
      },
    );
  const parts: Buffer[] = [];
  let size = 0;
  try {
    if (Number(headers["content-length"] ?? 0) > limit) throw tooLong();
    for await (const chunk of body) {
      size += chunk.length;
      if (size > limit) throw tooLong();
      parts.push(chunk);
    }
  } catch (error) {
    if (signal.aborted) throw abortError(signal);
    throw error instanceof Error ? unreachable(url, error) : error;
  } finally {
    body.destroy();
  }
  return Buffer.concat(parts);
};
