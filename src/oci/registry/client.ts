/** A registry, as far as pulling goes: manifests and blobs, from mirrors first, with whatever credentials it takes. */
import { BangerError } from "../../contract/errors.ts";
import { abortError } from "../../contract/progress.ts";
import { digestOf } from "../digest.ts";
import { type Descriptor, mediaTypes, MOST_MANIFEST } from "../manifest.ts";
import type { Reference } from "../reference.ts";
import { authorizer, parseChallenge, refused } from "./auth.ts";
import type { DownloadOptions } from "./download-options.ts";
import { type CredentialStore, dockerCredentials } from "./docker-config.ts";
import { http as makeHttp, type HttpOptions, type HttpResponse, isNoTls, readBody } from "./http.ts";

export type RegistryOptions = HttpOptions &
  DownloadOptions & {
    /** Registry -> addresses that are tried before it. */
    mirrors?: Readonly<Record<string, readonly string[]>>;
    /** Hosts that need no TLS, or no valid certificate. */
    insecure?: readonly string[];
    credentials?: CredentialStore;
  };

export type RegistryClient = {
  /**
   * @param at a tag or a digest
   * @throws IMAGE_NOT_FOUND, REGISTRY_AUTH, REGISTRY_UNREACHABLE, REGISTRY_ERROR
   */
  manifest(reference: Reference, at: string, signal: AbortSignal): Promise<{ bytes: Buffer; digest: string }>;
  /**
   * The blob's bytes from `offset` on; from 0 on where the registry cannot do that.
   * @throws as `manifest`
   */
  blob(
    reference: Reference,
    blob: Descriptor,
    offset: number,
    signal: AbortSignal,
  ): Promise<{ response: HttpResponse; offset: number }>;
};

type Endpoint = {
  /** Without a slash at the end. */
  base: string;
  /** Whose credentials are used. */
  registry: string;
  insecure: boolean;
  isMirror: boolean;
};

const HUB = "registry-1.docker.io";

const isLoopback = (host: string): boolean => /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])(?::\d+)?$/.test(host);

export const registryClient = (options: RegistryOptions = {}): RegistryClient => {
  const http = makeHttp(options);
  const auth = authorizer(http, options.credentials ?? dockerCredentials());
  /** By endpoint and repository. */
  const authorizations = new Map<string, string>();
  /** Hosts that turned out to speak plain HTTP. */
  const plain = new Set<string>();
  const isInsecure = (host: string) => isLoopback(host) || (options.insecure ?? []).includes(host);

  const endpointsOf = (registry: string): Endpoint[] => {
    const mirrors = (options.mirrors?.[registry] ?? []).map((address): Endpoint => {
      const { host, protocol } = new URL(address);
      return {
        base: address.replace(/\/+$/, ""),
        registry: host,
        insecure: protocol === "http:" || isInsecure(host),
        isMirror: true,
      };
    });
    const host = registry === "docker.io" ? HUB : registry;
    return [...mirrors, { base: `https://${host}`, registry, insecure: isInsecure(host), isMirror: false }];
  };

  const sendTo = async (
    endpoint: Endpoint,
    path: string,
    headers: Record<string, string>,
    signal: AbortSignal,
  ): Promise<HttpResponse> => {
    const url = new URL(`${endpoint.base}${path}`);
    if (plain.has(url.host)) url.protocol = "http:";
    try {
      return await http.send({ url, headers, insecure: endpoint.insecure, signal });
    } catch (error) {
      if (!endpoint.insecure || url.protocol !== "https:" || !isNoTls(error)) throw error;
      url.protocol = "http:";
      const response = await http.send({ url, headers, insecure: true, signal });
      plain.add(url.host);
      return response;
    }
  };

  /** With credentials where they are asked for. */
  const get = async (
    endpoint: Endpoint,
    repository: string,
    path: string,
    headers: Record<string, string>,
    signal: AbortSignal,
  ) => {
    const key = `${endpoint.base} ${repository}`;
    const send = () => {
      const authorization = authorizations.get(key);
      return sendTo(endpoint, path, authorization === undefined ? headers : { ...headers, authorization }, signal);
    };
    const sent = authorizations.get(key);
    const first = await send();
    if (first.status !== 401) return first;
    first.body.destroy();
    // A peer may have got a new token meanwhile.
    if (authorizations.get(key) === sent) {
      authorizations.delete(key);
      const challenge = parseChallenge(first.headers["www-authenticate"]);
      const { registry, insecure } = endpoint;
      const header = await auth.authorize({ registry, repository, challenge, insecure, signal });
      if (header === undefined) throw refused(registry, repository, false);
      authorizations.set(key, header);
    }
    const second = await send();
    if (second.status !== 401) return second;
    second.body.destroy();
    authorizations.delete(key);
    throw refused(endpoint.registry, repository, true);
  };

  /** Mirrors first; what fails there, for whatever reason, is asked of the next. */
  const fromAny = async <T>(
    reference: Reference,
    signal: AbortSignal,
    ask: (endpoint: Endpoint) => Promise<T>,
  ): Promise<T> => {
    const failures: string[] = [];
    for (const endpoint of endpointsOf(reference.registry)) {
      try {
        return await ask(endpoint);
      } catch (error) {
        if (signal.aborted) throw abortError(signal);
        if (!endpoint.isMirror) throw withMirrors(error, failures);
        failures.push(`${endpoint.base}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    throw new BangerError("INTERNAL", "a registry without an address");
  };

  return {
    manifest: (reference, at, signal) =>
      fromAny(reference, signal, async (endpoint) => {
        const { repository } = reference;
        const accept = Object.values(mediaTypes).join(", ");
        const response = await get(endpoint, repository, `/v2/${repository}/manifests/${at}`, { accept }, signal);
        await checkStatus(response, reference, `${at.includes(":") ? "" : "tag "}${at}`, signal);
        const bytes = await readBody(response, MOST_MANIFEST, signal);
        const announced = response.headers["docker-content-digest"];
        const wanted = at.includes(":")
          ? at
          : typeof announced === "string" && announced.startsWith("sha")
            ? announced
            : undefined;
        const digest = digestOf(bytes, wanted);
        if (wanted !== undefined && digest !== wanted)
          throw new BangerError(
            "REGISTRY_ERROR",
            `${endpoint.registry} sent a manifest with the digest ${digest} for ${wanted}`,
            {
              hint: "try again; if it stays so, the registry or what lies between is broken or hostile",
            },
          );
        return { bytes, digest };
      }),
    blob: (reference, blob, offset, signal) =>
      fromAny(reference, signal, async (endpoint) => {
        const { repository } = reference;
        const headers: Record<string, string> = offset > 0 ? { range: `bytes=${offset}-` } : {};
        let response = await get(endpoint, repository, `/v2/${repository}/blobs/${blob.digest}`, headers, signal);
        if (response.status === 416) {
          response.body.destroy();
          response = await get(endpoint, repository, `/v2/${repository}/blobs/${blob.digest}`, {}, signal);
        }
        await checkStatus(response, reference, `layer ${blob.digest}`, signal);
        const range = /^bytes (\d+)-/.exec(response.headers["content-range"] ?? "");
        return { response, offset: response.status === 206 && range ? Number(range[1]) : 0 };
      }),
  };
};

const withMirrors = (error: unknown, failures: readonly string[]): unknown => {
  if (failures.length === 0 || !(error instanceof BangerError)) return error;
  const hint = [error.hint, `its mirrors did not do either: ${failures.join("; ")}`].filter(Boolean).join(". ");
  return new BangerError(error.code, error.message, { hint, details: error.details, cause: error });
};

/** @throws what a status other than success means */
const checkStatus = async (
  response: HttpResponse,
  { registry, repository, name }: Reference,
  what: string,
  signal: AbortSignal,
): Promise<void> => {
  const { status, url, headers } = response;
  if (status === 200 || status === 206) return;
  const said = await readBody(response, 64 * 1024, signal).then(messageOf, () => "");
  const details = { status, host: url.host };
  if (status === 404)
    throw new BangerError("IMAGE_NOT_FOUND", `${registry} has no ${what} of ${repository}${said}`, {
      hint: `check the name and the tag of ${name}`,
      details,
    });
  if (status === 401 || status === 403) throw refused(registry, repository, true);
  if (status === 429)
    throw new BangerError("REGISTRY_ERROR", `${registry} says that you have asked too often${said}`, {
      hint: "wait, log in (docker login), or set a mirror in registry_mirrors of config.toml",
      details: { ...details, retryAfter: headers["retry-after"] },
    });
  throw new BangerError("REGISTRY_ERROR", `${url.host} answered ${status} for ${what} of ${repository}${said}`, {
    hint: "try again later",
    details,
  });
};

/** The registry's own words, if it has any. */
const messageOf = (body: Buffer): string => {
  try {
    const { errors } = JSON.parse(body.toString("utf8")) as { errors?: { message?: unknown }[] };
    const message = errors?.[0]?.message;
    return typeof message === "string" && message !== "" ? `: ${message.slice(0, 300)}` : "";
  } catch {
    // Not in the registries' form: its status says enough.
    return "";
  }
};
