/** Credentials as `docker login` leaves them: in its config file, or with a helper program that it names. */
import * as z from "zod/mini";
import { BangerError } from "../../contract/errors.ts";
import { readFileIfThere } from "../../host/files.ts";
import { dockerConfigFile } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";

export type Credentials =
  | { user: string; password: string }
  /** Changed for a token at the registry's token server. */
  | { identityToken: string }
  /** Sent as it is. */
  | { registryToken: string };

const authSchema = z.object({
  auth: z.optional(z.string()),
  username: z.optional(z.string()),
  password: z.optional(z.string()),
  identitytoken: z.optional(z.string()),
  registrytoken: z.optional(z.string()),
});
const configSchema = z.object({
  auths: z.nullish(z.record(z.string(), z.nullish(authSchema))),
  credHelpers: z.nullish(z.record(z.string(), z.string())),
  credsStore: z.nullish(z.string()),
});
type DockerConfig = z.infer<typeof configSchema>;

const helperAnswer = z.object({ Username: z.string(), Secret: z.string() });

/** The key of Docker Hub in that file. */
const HUB_KEY = "https://index.docker.io/v1/";

const keysOf = (registry: string): string[] =>
  registry === "docker.io" ? [HUB_KEY, "index.docker.io", "docker.io", "registry-1.docker.io"] : [registry];

/** `https://host/v1/` and `host` are the same. */
const hostOf = (key: string): string => key.replace(/^https?:\/\//, "").replace(/\/.*$/, "");

export type CredentialStore = {
  /**
   * @returns undefined where there are none for that registry
   * @throws REGISTRY_AUTH when the file or a helper cannot be used
   */
  find(registry: string, signal: AbortSignal): Promise<Credentials | undefined>;
};

export const dockerCredentials = (path = dockerConfigFile()): CredentialStore => ({
  find: async (registry, signal) => {
    const config = await readConfig(path);
    if (!config) return undefined;
    const helper =
      keysOf(registry)
        .map((key) => config.credHelpers?.[key])
        .find(Boolean) ?? config.credsStore;
    if (helper) {
      const found = await askHelper(helper, registry, signal);
      if (found) return found;
    }
    return fromFile(config, registry);
  },
});

const unusable = (what: string, hint: string, cause?: unknown): BangerError =>
  new BangerError("REGISTRY_AUTH", what, { hint, cause });

const readConfig = async (path: string): Promise<DockerConfig | undefined> => {
  const text = await readFileIfThere(path);
  if (text === undefined) return undefined;
  try {
    return configSchema.parse(JSON.parse(text));
  } catch (error) {
    throw unusable(`${path} cannot be understood`, "mend it, or log in again: docker login REGISTRY", error);
  }
};

const fromFile = ({ auths }: DockerConfig, registry: string): Credentials | undefined => {
  const wanted = keysOf(registry);
  const entries = Object.entries(auths ?? {});
  const found = (entries.find(([key]) => wanted.includes(key)) ??
    entries.find(([key]) => wanted.includes(hostOf(key))))?.[1];
  if (!found) return undefined;
  if (found.registrytoken) return { registryToken: found.registrytoken };
  if (found.identitytoken) return { identityToken: found.identitytoken };
  if (found.auth) {
    const text = Buffer.from(found.auth, "base64").toString("utf8");
    const colon = text.indexOf(":");
    // Docker fills up with NULs.
    if (colon > 0) return { user: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, "") };
  }
  return found.username && found.password ? { user: found.username, password: found.password } : undefined;
};

const HELPER_LIMIT = 30_000;

const askHelper = async (helper: string, registry: string, signal: AbortSignal): Promise<Credentials | undefined> => {
  if (!/^[\w.-]+$/.test(helper))
    throw unusable(
      `${JSON.stringify(helper)} is no name of a credential helper`,
      "correct credsStore and credHelpers in Docker's config.json",
    );
  const program = `docker-credential-${helper}`;
  const server = registry === "docker.io" ? HUB_KEY : registry;
  try {
    const { stdout, status } = await runTool({
      argv: [program, "get"],
      input: `${server}\n`,
      okStatus: [0, 1],
      signal: AbortSignal.any([signal, AbortSignal.timeout(HELPER_LIMIT)]),
    });
    if (status === 1) {
      // The words that all helpers say where they have nothing; on stdout.
      if (/credentials not found/i.test(stdout)) return undefined;
      throw unusable(
        `${program} failed: ${stdout.trim().slice(0, 500) || "(no output)"}`,
        "log in again: docker login REGISTRY",
      );
    }
    const { Username, Secret } = helperAnswer.parse(JSON.parse(stdout));
    return Username === "<token>" ? { identityToken: Secret } : { user: Username, password: Secret };
  } catch (error) {
    if (signal.aborted || (error instanceof BangerError && error.code === "REGISTRY_AUTH")) throw error;
    const missing = error instanceof BangerError && error.code === "TOOL_MISSING";
    throw unusable(
      missing
        ? `the credential helper ${program} is not installed`
        : `${program} gave no answer that can be understood`,
      missing ? `install ${program}, or take it out of Docker's config.json` : "log in again: docker login REGISTRY",
      error,
    );
  }
};
