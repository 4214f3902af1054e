/** How to get past a registry's 401: basic credentials, or a token that its token server gives for them. */
import * as z from "zod/mini";
import { BangerError } from "../../contract/errors.ts";
import type { CredentialStore, Credentials } from "./docker-config.ts";
import { type Http, readBody } from "./http.ts";

export type Challenge = { scheme: "basic" | "bearer"; parameters: Record<string, string> };

/** `Bearer realm="https://…",service="…",scope="…"`; the bearer's where there are several. */
export const parseChallenge = (header: string | undefined): Challenge | undefined => {
  const found: Challenge[] = [];
  for (const [, scheme = "", rest = ""] of (header ?? "").matchAll(
    /\b(basic|bearer)\s+((?:[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s,]+)\s*,?\s*)*)/gi,
  )) {
    const parameters: Record<string, string> = {};
    for (const [, key = "", quoted, bare] of rest.matchAll(/([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))/g))
      parameters[key.toLowerCase()] = quoted?.replace(/\\(.)/g, "$1") ?? bare ?? "";
    found.push({ scheme: scheme.toLowerCase() === "basic" ? "basic" : "bearer", parameters });
  }
  return found.find(({ scheme }) => scheme === "bearer") ?? found[0];
};

const MOST_TOKEN = 1024 * 1024;
const tokenSchema = z.object({ token: z.optional(z.string()), access_token: z.optional(z.string()) });

export type AuthRequest = {
  /** As the user names it: whose credentials are used. */
  registry: string;
  repository: string;
  challenge: Challenge | undefined;
  insecure: boolean;
  signal: AbortSignal;
};

export type Authorizer = {
  /**
   * @returns a header for `Authorization`, or undefined where there is nothing to try
   * @throws REGISTRY_AUTH when credentials are refused
   */
  authorize(request: AuthRequest): Promise<string | undefined>;
};

export const authorizer = (http: Http, credentials: CredentialStore): Authorizer => ({
  authorize: async (request) => {
    const { registry, challenge, signal } = request;
    if (!challenge) return undefined;
    let known: Credentials | undefined;
    let failure: unknown;
    try {
      known = await credentials.find(registry, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      // A broken helper of some other registry's user must not keep public images from being pulled.
      failure = error;
    }
    if (known && "registryToken" in known) return `Bearer ${known.registryToken}`;
    if (challenge.scheme === "bearer") return await tokenFor(http, request, challenge, known, failure);
    if (known && "user" in known) return basic(known);
    if (failure) throw failure;
    return undefined;
  },
});

const basic = ({ user, password }: { user: string; password: string }): string =>
  `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;

const tokenFor = async (
  http: Http,
  { registry, repository, insecure, signal }: AuthRequest,
  { parameters }: Challenge,
  known: Credentials | undefined,
  failure: unknown,
): Promise<string> => {
  const realm = URL.parse(parameters.realm ?? "");
  if (realm === null || !(realm.protocol === "https:" || (insecure && realm.protocol === "http:")))
    throw new BangerError("REGISTRY_AUTH", `${registry} asks for a token, and from nowhere that is secure`, {
      hint: "name another registry or mirror",
    });
  const scope = parameters.scope ?? `repository:${repository}:pull`;
  const shared = { insecure, signal };
  const service = parameters.service ?? "";
  const response =
    known && "identityToken" in known
      ? await http.send({
          ...shared,
          url: realm,
          form: new URLSearchParams({
            grant_type: "refresh_token",
            refresh_token: known.identityToken,
            client_id: "banger",
            service,
            scope,
          }),
        })
      : await http.send({
          ...shared,
          url: withQuery(realm, { service, scope }),
          headers: known && "user" in known ? { authorization: basic(known) } : {},
        });
  const body = await readBody(response, MOST_TOKEN, signal);
  if (response.status === 401 || response.status === 403)
    throw failure ?? refused(registry, repository, known !== undefined);
  if (response.status !== 200)
    throw new BangerError("REGISTRY_ERROR", `the token server ${realm.host} answered ${response.status}`, {
      hint: "try again later",
    });
  try {
    const { token, access_token } = tokenSchema.parse(JSON.parse(body.toString("utf8")));
    const given = token ?? access_token ?? "";
    if (/^[\x21-\x7e]+$/.test(given)) return `Bearer ${given}`;
  } catch {
    // Said below, like a token that cannot be sent.
  }
  throw new BangerError("REGISTRY_ERROR", `the token server ${realm.host} gave no token`, { hint: "try again later" });
};

const withQuery = (url: URL, values: Record<string, string>): URL => {
  const result = new URL(url);
  for (const [key, value] of Object.entries(values)) if (value !== "") result.searchParams.set(key, value);
  return result;
};

/** @param loggedIn there are credentials, and they did not do */
export const refused = (registry: string, repository: string, loggedIn: boolean): BangerError =>
  new BangerError(
    "REGISTRY_AUTH",
    loggedIn
      ? `${registry} refuses your credentials for ${repository}`
      : `${registry} lets nobody without credentials have ${repository}`,
    {
      hint: `${loggedIn ? "log in again" : "check the name; if the image is private, log in"}: docker login ${registry === "docker.io" ? "" : registry}`.trim(),
      details: { registry, repository },
    },
  );
