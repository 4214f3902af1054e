/** Reads `config.toml` and fills in what it leaves out. */
import { availableParallelism, homedir, totalmem } from "node:os";
import { join } from "node:path";
import { parse, TomlError } from "smol-toml";
import * as z from "zod/mini";
import { type Config, type ConfigFile, type ConfigOrigin, configKeys, configSchema } from "../contract/config.ts";
import { configExample } from "../contract/config-reference.ts";
import { BangerError, nearest } from "../contract/errors.ts";
import { parseDuration, parseListen, parseSize } from "../contract/names.ts";
import { readFileIfThere } from "./files.ts";
import { configFile, sshKeyFile } from "./paths.ts";
import { lineOfKey } from "./toml-lines.ts";

const MiB = 2 ** 20;
const GiB = 2 ** 30;

type Path = (string | number)[];

const invalid = (path: string, line: number | undefined, message: string, key: string, hint?: string): BangerError =>
  new BangerError("INVALID_CONFIG", `${path}${line === undefined ? "" : ` line ${line}`}: ${message}`, {
    hint: hint ?? "correct the line, or take it out to use the default",
    details: { file: path, line, key },
  });

/** `vm_defaults.memory`, `file_sync[0].host` */
const keyName = (path: Path): string =>
  path.reduce<string>(
    (name, part) => (typeof part === "number" ? `${name}[${part}]` : name === "" ? part : `${name}.${part}`),
    "",
  );

/** What stands at a path of a parsed document. */
const valueAt = (value: unknown, [first, ...rest]: Path): unknown =>
  first === undefined || typeof value !== "object" || value === null
    ? value
    : valueAt((value as Record<string, unknown>)[first], rest);

/** What was probably meant, else how the key is written. */
const valueHint = (issue: z.core.$ZodIssue, key: string, given: unknown): string | undefined => {
  if (issue.code === "invalid_value" && typeof given === "string") {
    const near = nearest(given.toLowerCase(), issue.values.map(String));
    if (near) return `did you mean "${near}"?`;
  }
  const example = configExample(key);
  return example && `write it like this: ${example.replaceAll("\n", "\n  ")}`;
};

const shown = (given: unknown): string =>
  typeof given === "string" || typeof given === "number" || typeof given === "boolean"
    ? ` (it is ${JSON.stringify(given)})`
    : "";

const firstIssue = (path: string, text: string, value: unknown, error: z.core.$ZodError): BangerError => {
  const issue = error.issues[0];
  const at: Path = (issue?.path ?? []).filter((part) => typeof part !== "symbol");
  if (issue?.code !== "unrecognized_keys") {
    const key = keyName(at);
    const given = valueAt(value, at);
    // A key of a table that is itself what is wrong, such as a registry's name: zod hides why one level down.
    const message = (issue?.code === "invalid_key" ? issue.issues[0]?.message : issue?.message) ?? "is not valid";
    const what = given === undefined && issue?.code === "invalid_type" ? "is missing: it " : "";
    return invalid(
      path,
      lineOfKey(text, at),
      `\`${key}\` ${what}${message}${shown(given)}`,
      key,
      issue && valueHint(issue, key, given),
    );
  }
  const [unknown = ""] = issue.keys;
  const key = keyName([...at, unknown]);
  const table = at.find((part) => typeof part === "string") ?? "";
  const near = nearest(unknown, configKeys(table));
  return invalid(
    path,
    lineOfKey(text, [...at, unknown]),
    `unknown key \`${key}\``,
    key,
    near ? `did you mean \`${near}\`?` : `known keys: ${configKeys(table).join(", ") || "none yet"}`,
  );
};

/**
 * @param path of the file, for errors
 * @throws INVALID_CONFIG that names file, line and key
 */
export const parseConfig = (text: string, path: string): ConfigFile => {
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [message = "not TOML"] = error.message.replace(/^Invalid TOML document: /, "").split("\n");
    throw invalid(path, error.line, message, "");
  }
  const parsed = z.safeParse(configSchema, value);
  if (!parsed.success) throw firstIssue(path, text, value, parsed.error);
  return parsed.data;
};

const expandHome = (path: string): string => (path.startsWith("~/") ? join(homedir(), path.slice(2)) : path);
const clamp = (value: number, least: number, most: number): number => Math.min(most, Math.max(least, value));

/** What a VM gets on this host where nobody says: a quarter of the CPUs and an eighth of the memory, in whole MiB. */
export const hostDefaults = (host = { cpus: availableParallelism(), memory: totalmem() }) => ({
  vcpu: clamp(Math.floor(host.cpus / 4), 1, 4),
  memory: clamp(Math.floor(host.memory / 8 / MiB) * MiB, 512 * MiB, 4 * GiB),
});

/** The file's settings with every default filled in. */
export const resolveConfig = (file: ConfigFile, host = hostDefaults()): Config => {
  const origins: Record<string, ConfigOrigin> = {};
  const pick = <T, D>(key: string, given: T | undefined, fallback: D, origin: ConfigOrigin = "built in"): T | D => {
    origins[key] = given === undefined ? origin : "config";
    return given === undefined ? fallback : given;
  };
  const bytes = (text: string | undefined, what: string) => (text === undefined ? undefined : parseSize(text, what));
  const milliseconds = (text: string | undefined) => (text === undefined ? undefined : parseDuration(text));
  const listen = (text: string) => (text === "off" ? undefined : parseListen(text));
  const vm = file.vm_defaults ?? {};
  return {
    logLevel: pick("log_level", file.log_level, "info" as const),
    vmm: pick("vmm", file.vmm, "auto" as const),
    firecrackerBin: pick("firecracker_bin", file.firecracker_bin, "firecracker"),
    serialConsole: pick("serial_console", file.serial_console, false),
    qemuBin: pick("qemu_bin", file.qemu_bin, "qemu-system-x86_64"),
    sshKeyPath: expandHome(pick("ssh_key_path", file.ssh_key_path, sshKeyFile())),
    sshKeyIsOurs: file.ssh_key_path === undefined,
    autoStopStaleAfter: pick("auto_stop_stale_after", milliseconds(file.auto_stop_stale_after), undefined),
    statsPollInterval: pick("stats_poll_interval", milliseconds(file.stats_poll_interval), 10_000),
    bootTimeout: pick("boot_timeout", milliseconds(file.boot_timeout), 120_000),
    debianMirror: pick("debian_mirror", file.debian_mirror, undefined),
    registryMirrors: pick("registry_mirrors", file.registry_mirrors, {}),
    insecureRegistries: pick("insecure_registries", file.insecure_registries, []),
    catalogs: pick("catalogs", file.catalogs, []).map(expandHome),
    vmDefaults: {
      image: pick("default_image_name", file.default_image_name, "debian-bookworm"),
      kernel: pick("default_kernel_name", file.default_kernel_name, "debian-bookworm-cloud"),
      vcpu: pick("vm_defaults.vcpu", vm.vcpu, host.vcpu, "host"),
      memory: pick("vm_defaults.memory", bytes(vm.memory, "memory size"), host.memory, "host"),
      diskSize: pick("vm_defaults.disk_size", bytes(vm.disk_size, "disk size"), 8 * GiB),
      network: pick("vm_defaults.network", vm.network, "user" as const),
    },
    network: {
      dns: listen(pick("network.dns", file.network?.dns, "127.0.0.1:42069")),
      web: listen(pick("network.web", file.network?.web, "off")),
    },
    limits: {
      diskBandwidth: pick("limits.disk_bandwidth", bytes(file.limits?.disk_bandwidth, "bandwidth"), undefined),
      networkBandwidth: pick("limits.network_bandwidth", bytes(file.limits?.network_bandwidth, "bandwidth"), undefined),
    },
    templates: {
      enabled: pick("templates.enabled", file.templates?.enabled, true),
      maxCount: pick("templates.max_count", file.templates?.max_count, 8),
      maxSize: pick("templates.max_size", bytes(file.templates?.max_size, "size"), 16 * GiB),
      pool: pick("templates.pool", file.templates?.pool, 0),
    },
    fileSync: pick("file_sync", file.file_sync, []).map(({ host: from, guest, mode }) => ({
      host: expandHome(from),
      guest: guest.replace(/^~\//, "/root/"),
      mode: Number.parseInt(mode ?? "0600", 8),
    })),
    origins,
  };
};

/**
 * The settings of this user; a missing file is all defaults.
 * @throws INVALID_CONFIG that names file, line and key
 */
export const loadConfig = async (path = configFile()): Promise<Config> =>
  resolveConfig(parseConfig((await readFileIfThere(path)) ?? "", path));
