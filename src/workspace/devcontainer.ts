/**
 * `.devcontainer/devcontainer.json`, as far as a VM can be what it asks for. It is code of whoever wrote the repository: what it runs runs in the guest, and what
 * would reach the host is refused. Every key of it is told of.
 */
import type { Entry } from "./state.ts";

export type KeyReport = {
  key: string;
  fate: "honoured" | "ignored" | "refused";
  /** Why it is not honoured. */
  why?: string;
};

export type Devcontainer = {
  /** The file, below the repository's root. */
  file: string;
  image?: string;
  env: Record<string, string>;
  /** Of the guest. */
  ports: number[];
  /** What mise installs: `node@20`. */
  tools: string[];
  /** Lines for a shell in the workspace, in their order. */
  commands: string[];
  keys: KeyReport[];
};

const FILES = [".devcontainer/devcontainer.json", ".devcontainer.json"];

export const devcontainerIn = (entries: readonly Entry[]): Entry | undefined =>
  FILES.map((file) => entries.find(({ path, mode }) => path === file && mode.startsWith("100"))).find(Boolean);

/** JSON with comments and commas before a closing bracket. @throws SyntaxError */
export const parseJsonc = (text: string): unknown =>
  JSON.parse(
    text
      .replace(/^\ufeff/, "")
      .replace(/("(?:[^"\\]|\\.)*")|\/\/[^\n]*|\/\*[\s\S]*?\*\//g, (_, string: string | undefined) => string ?? " ")
      .replace(/("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])/g, (_, string: string | undefined) => string ?? ""),
  );

type Fate = Omit<KeyReport, "key">;
type Draft = Omit<Devcontainer, "file" | "keys">;
type Reader = (value: unknown, draft: Draft, folder: string) => Fate;

const honoured: Fate = { fate: "honoured" };
const ignored = (why: string): Fate => ({ fate: "ignored", why });
const refused = (why: string): Fate => ({ fate: "refused", why });
const always =
  (fate: Fate): Reader =>
  () =>
    fate;
const wrongType = refused("it is of the wrong type");

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isText = (value: unknown): value is string => typeof value === "string" && !value.includes("\0");

/** `${containerWorkspaceFolder}` and its like; undefined where it asks for something of the host's. */
const filledIn = (text: string, folder: string): string | undefined => {
  const name = folder.slice(folder.lastIndexOf("/") + 1);
  const known: Record<string, string> = {
    containerWorkspaceFolder: folder,
    containerWorkspaceFolderBasename: name,
    localWorkspaceFolderBasename: name,
  };
  const result = text.replace(/\$\{([^}]*)\}/g, (whole, key: string) => known[key] ?? whole);
  return result.includes("${") ? undefined : result;
};

const environment: Reader = (value, draft, folder) => {
  if (!isRecord(value)) return wrongType;
  const left: string[] = [];
  for (const [name, text] of Object.entries(value)) {
    const filled = isText(text) ? filledIn(text, folder) : undefined;
    if (filled === undefined || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) left.push(name);
    else draft.env[name] = filled;
  }
  return left.length === 0
    ? honoured
    : refused(`${left.join(", ")}: a variable of the host's, or no text; the rest is honoured`);
};

const user: Reader = (value) =>
  value === "root" || value === "0" ? honoured : refused("the workspace is root's in the VM");

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

/** A shell's line, a program with its arguments, or several of them by name. */
const lineOf = (value: unknown): string | undefined => {
  if (isText(value)) return value;
  if (Array.isArray(value) && value.every(isText)) return value.map(quoted).join(" ");
  return undefined;
};
const command: Reader = (value, draft) => {
  const lines = isRecord(value) ? Object.values(value).map(lineOf) : [lineOf(value)];
  const whole = lines.filter((line) => line !== undefined);
  if (whole.length !== lines.length) return wrongType;
  draft.commands.push(...whole.filter((line) => line.trim() !== ""));
  return honoured;
};

const ports: Reader = (value, draft) => {
  if (!Array.isArray(value)) return wrongType;
  const left: string[] = [];
  for (const port of value) {
    const number = isText(port) ? Number(/^(?:localhost:|127\.0\.0\.1:)?(\d+)$/.exec(port)?.[1]) : port;
    if (Number.isInteger(number) && number > 0 && number < 65536) draft.ports.push(number);
    else left.push(JSON.stringify(port) ?? "?");
  }
  draft.ports = [...new Set(draft.ports)];
  return left.length === 0
    ? honoured
    : refused(`${left.join(", ")}: only ports of the VM itself; the rest is honoured`);
};

/** Features that are a tool of mise's, by the end of their names. */
const featureTools = ["node", "python", "go", "rust", "java", "ruby", "bun", "deno", "terraform", "kubectl", "helm"];
/** What the default image has anyway. */
const featuresThere = ["common-utils", "git", "docker-in-docker", "docker-outside-of-docker", "sshd", "mise"];

const features: Reader = (value, draft) => {
  if (!isRecord(value)) return wrongType;
  const left: string[] = [];
  for (const [id, options] of Object.entries(value)) {
    const name = /([a-z0-9-]+)(?::[^/]*|@[^/]*)?$/.exec(id)?.[1] ?? id;
    const version =
      isRecord(options) && isText(options.version) ? options.version : isText(options) ? options : "latest";
    if (featureTools.includes(name) && /^[A-Za-z0-9._-]+$/.test(version)) draft.tools.push(`${name}@${version}`);
    else if (!featuresThere.includes(name)) left.push(name);
  }
  return left.length === 0 ? honoured : ignored(`${left.join(", ")}: no tool of mise's; the rest is honoured`);
};

const image: Reader = (value, draft) => {
  if (!isText(value) || value === "") return wrongType;
  const filled = filledIn(value, "");
  if (filled === undefined) return refused("it asks for a variable of the host's");
  draft.image = filled;
  return honoured;
};

const noBuild = refused("banger builds no image of a Dockerfile: give one with --image");
const editor = ignored("for an editor");
const laterCommand = ignored("run it yourself when you need it");

const readers: Record<string, Reader> = {
  image,
  containerEnv: environment,
  remoteEnv: environment,
  remoteUser: user,
  containerUser: user,
  onCreateCommand: command,
  updateContentCommand: command,
  postCreateCommand: command,
  forwardPorts: ports,
  features,
  initializeCommand: always(refused("it would run on the host")),
  mounts: always(refused("nothing of the host is mounted in a VM: use [[file_sync]] or `vm cp`")),
  workspaceMount: always(refused("the repository is brought in, not mounted")),
  runArgs: always(refused("they are arguments of docker's")),
  build: always(noBuild),
  dockerFile: always(noBuild),
  context: always(noBuild),
  dockerComposeFile: always(refused("run it in the VM: docker compose up")),
  service: always(refused("it is one of a docker compose file")),
  runServices: always(refused("they are of a docker compose file")),
  secrets: always(ignored("give them by --env, or by [[file_sync]]")),
  workspaceFolder: always(ignored("it is /root/NAME in every VM")),
  name: always(ignored("a VM is named by --name")),
  $schema: always(editor),
  customizations: always(editor),
  settings: always(editor),
  extensions: always(editor),
  portsAttributes: always(editor),
  otherPortsAttributes: always(editor),
  userEnvProbe: always(editor),
  waitFor: always(editor),
  postStartCommand: always(laterCommand),
  postAttachCommand: always(laterCommand),
  hostRequirements: always(ignored("a VM's size is given by --vcpu, --memory and --disk-size")),
  overrideFeatureInstallOrder: always(ignored("the order makes no difference here")),
  shutdownAction: always(ignored("a VM goes on until it is stopped")),
  overrideCommand: always(ignored("a VM has an init of its own")),
  init: always(ignored("a VM has an init of its own")),
  updateRemoteUserUID: always(ignored("users of a VM are its own")),
  privileged: always(ignored("root of a VM may do all in it")),
  capAdd: always(ignored("root of a VM may do all in it")),
  securityOpt: always(ignored("a VM has a kernel of its own")),
  appPort: ports,
};
/** What is run, and what is filled in over what, follows from this and not from the order of the file. */
const order = Object.keys(readers);

/**
 * @param file its path, for the report
 * @param folder of the workspace in the guest
 * @throws SyntaxError, for what is no JSON object
 */
export const readDevcontainer = (text: string, file: string, folder: string): Devcontainer => {
  const value = parseJsonc(text);
  if (!isRecord(value)) throw new SyntaxError("it is no object");
  const draft: Draft = { env: {}, ports: [], tools: [], commands: [] };
  const known = (key: string): boolean => Object.hasOwn(readers, key);
  const fates = new Map(
    Object.keys(value)
      .filter(known)
      .sort((a, b) => order.indexOf(a) - order.indexOf(b))
      .map((key) => [key, readers[key]?.(value[key], draft, folder) ?? ignored("unknown")] as const),
  );
  const keys = Object.keys(value).map((key) => ({ key, ...(fates.get(key) ?? ignored("banger does not know it")) }));
  return { file, ...draft, keys };
};

/** A line for each fate. */
export const reportOf = ({ file, keys }: Devcontainer): string[] =>
  (["honoured", "ignored", "refused"] as const).flatMap((fate) => {
    const those = keys.filter((report) => report.fate === fate);
    const list = those.map(({ key, why }) => (why === undefined ? key : `${key} (${why})`)).join(", ");
    return those.length === 0 ? [] : [`${file}: ${fate}: ${list}`];
  });
