/** `config.toml`: its keys and what they may hold. Every key is optional. */
import * as z from "zod/mini";
import { isName, parseDuration, parseListen, parseSize } from "./names.ts";
import { networkModes } from "./network.ts";

const isSize = (text: string): boolean => {
  try {
    return parseSize(text, "size") > 0;
  } catch {
    // Only whether it is one is asked here.
    return false;
  }
};

const oneOf = <const T extends readonly [string, ...string[]]>(values: T) =>
  z.enum(values, `must be one of ${values.map((value) => `"${value}"`).join(", ")}`);
const string = (what: string) => z.string(what).check(z.minLength(1, what));
const size = z.string('must be a size such as "4G"').check(z.refine(isSize, 'must be a size above zero such as "4G"'));
const duration = z
  .string('must be a time such as "30m"')
  .check(z.refine((text) => parseDuration(text) !== undefined, 'must be a time such as "30s", "15m" or "2h"'));
const count = z
  .number("must be a whole number above zero")
  .check(z.int("must be a whole number above zero"), z.positive("must be above zero"));
const url = z
  .string("must be an http or https address")
  .check(z.refine((text) => /^https?:\/\/[^\s]+$/.test(text), "must be an http or https address"));
/** `docker.io`, `localhost:5000`, `[::1]:5000`: the part of an image's reference that names its registry. */
const isRegistry = (text: string): boolean =>
  /^(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::\d{1,5})?$/i.test(text);
const registryRule = "must be a registry such as docker.io or localhost:5000, without http://";
const registry = z.string(registryRule).check(z.refine(isRegistry, registryRule));
const listenRule = 'must be "off", or a loopback address with a port such as "127.0.0.1:42069"';
const listenAddress = z
  .string(listenRule)
  .check(z.refine((text) => text === "off" || parseListen(text) !== undefined, listenRule));
/** `~user` and relative paths would mean something else in another folder or for another user. */
const userPath = z
  .string("must be a path")
  .check(
    z.refine((text) => text.startsWith("/") || text.startsWith("~/"), "must be an absolute path or start with ~/"),
  );
/** It is written into an ssh_config, in quotes, where these cannot be expressed. */
const keyPath = userPath.check(
  z.refine((text) => !/["\p{Cc}]/u.test(text), "must be a path without quotes or control characters"),
);
const guestPath = z
  .string("must be a path")
  .check(
    z.refine(
      (text) => /^(\/root|~)\/./.test(text) && !text.split("/").includes(".."),
      "must lie under /root or ~/ in the guest",
    ),
  );

export const configSchema = z.strictObject({
  log_level: z.optional(oneOf(["debug", "info", "warn", "error"])),
  vmm: z.optional(oneOf(["auto", "firecracker", "qemu"])),
  firecracker_bin: z.optional(string("must be a program's name or path")),
  /** Under Firecracker. */
  serial_console: z.optional(z.boolean("must be true or false")),
  qemu_bin: z.optional(string("must be a program's name or path")),
  ssh_key_path: z.optional(keyPath),
  default_image_name: z.optional(string("must be the name of an image")),
  default_kernel_name: z.optional(
    z.string("must be the name of a kernel").check(z.refine(isName, "must be the name of a kernel")),
  ),
  auto_stop_stale_after: z.optional(duration),
  stats_poll_interval: z.optional(duration),
  /** How long a guest may take until its agent answers. */
  boot_timeout: z.optional(duration),
  debian_mirror: z.optional(url),
  /** Registry -> addresses that are tried before it, in this order. */
  registry_mirrors: z.optional(
    z.record(
      z.string().check(z.refine(isRegistry, registryRule)),
      z.array(url, "must be a list of addresses"),
      "must be a table of lists of addresses",
    ),
  ),
  /** Registries that are spoken to by plain HTTP, or without checking their certificate. */
  insecure_registries: z.optional(z.array(registry, "must be a list of registries")),
  /** Catalog files of the user's own; a later entry of the same name hides an earlier one and the one that is shipped. */
  catalogs: z.optional(z.array(userPath, "must be a list of paths")),
  vm_defaults: z.optional(
    z.strictObject(
      {
        vcpu: z.optional(count),
        memory: z.optional(size),
        disk_size: z.optional(size),
        network: z.optional(oneOf(networkModes)),
      },
      "must be a table",
    ),
  ),
  limits: z.optional(
    z.strictObject(
      {
        /** Bytes a second, of each VM. */
        disk_bandwidth: z.optional(size),
        network_bandwidth: z.optional(size),
      },
      "must be a table",
    ),
  ),
  templates: z.optional(
    z.strictObject(
      {
        /** Off: every VM boots cold, and none is made. */
        enabled: z.optional(z.boolean("must be true or false")),
        max_count: z.optional(count),
        max_size: z.optional(size),
        pool: z.optional(z.number("must be a number").check(z.int(), z.minimum(0), z.maximum(100))),
      },
      "must be a table",
    ),
  ),
  network: z.optional(
    z.strictObject(
      {
        /** Where names below `.vm` are answered. */
        dns: z.optional(listenAddress),
        /** Where `PORT.NAME.localhost` leads to a VM's server. */
        web: z.optional(listenAddress),
      },
      "must be a table",
    ),
  ),
  file_sync: z.optional(
    z.array(
      z.strictObject(
        {
          host: userPath,
          guest: guestPath,
          mode: z.optional(
            z
              .string('must be an octal mode such as "0600"')
              .check(z.regex(/^0?[0-7]{3}$/, 'must be an octal mode such as "0600"')),
          ),
        },
        "must be a table with host and guest",
      ),
      "must be an array of tables: write [[file_sync]]",
    ),
  ),
});
/** The file as it is written, before defaults. */
export type ConfigFile = z.infer<typeof configSchema>;

const keysAt: Record<string, readonly string[]> = {
  "": Object.keys(configSchema.shape),
  vm_defaults: ["vcpu", "memory", "disk_size", "network"],
  limits: ["disk_bandwidth", "network_bandwidth"],
  templates: ["enabled", "max_count", "max_size", "pool"],
  network: ["dns", "web"],
  file_sync: ["host", "guest", "mode"],
};

/** Known keys of a table of the file, for suggestions. @param table `` for the top, else its name */
export const configKeys = (table: string): readonly string[] => keysAt[table] ?? [];

/** Port 0: any that is free. */
export type ListenAddress = { address: string; port: number };

export type ConfigOrigin = "config" | "host" | "built in";

/** Settings with every default filled in. Sizes are bytes, times milliseconds. */
export type Config = {
  logLevel: "debug" | "info" | "warn" | "error";
  vmm: "auto" | "firecracker" | "qemu";
  firecrackerBin: string;
  serialConsole: boolean;
  qemuBin: string;
  /** Absolute. */
  sshKeyPath: string;
  /** The key is banger's own: made when it is missing. */
  sshKeyIsOurs: boolean;
  /** Undefined: a VM is not stopped for being idle. */
  autoStopStaleAfter: number | undefined;
  statsPollInterval: number;
  bootTimeout: number;
  debianMirror: string | undefined;
  /** Registry -> addresses that are tried before it, in this order. */
  registryMirrors: Record<string, string[]>;
  /** `host` or `host:port` of registries that are spoken to by plain HTTP, or without checking their certificate. */
  insecureRegistries: string[];
  /** Absolute paths of catalog files; a later entry of the same name hides an earlier one and the shipped one. */
  catalogs: string[];
  vmDefaults: {
    image: string;
    kernel: string;
    vcpu: number;
    memory: number;
    diskSize: number;
    network: (typeof networkModes)[number];
  };
  /** What is offered on this machine, and where; undefined: not at all. */
  network: { dns: ListenAddress | undefined; web: ListenAddress | undefined };
  /** Of each VM, in bytes a second; undefined: none. */
  limits: { diskBandwidth: number | undefined; networkBandwidth: number | undefined };
  /**
   * Saved VMs that others start from; the least recently used go first. `maxSize` is bytes on disk of all. `pool`: how many VMs of a kind wait, restored
   * and paused.
   */
  templates: { enabled: boolean; maxCount: number; maxSize: number; pool: number };
  /** Copied into a VM at each start. `host` and `guest` are absolute, `guest` below /root; `mode` of each file, the owner is root. */
  fileSync: { host: string; guest: string; mode: number }[];
  /** Where each value comes from, by its key in the file: `vm_defaults.memory`. */
  origins: Record<string, ConfigOrigin>;
};
