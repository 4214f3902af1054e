/** Config, images, kernels, the database and the daemon. */
import { readFile } from "node:fs/promises";
import type { Config } from "../../contract/config.ts";
import { errnoOf, toBangerError } from "../../contract/errors.ts";
import { formatSize } from "../../contract/names.ts";
import { buildId } from "../../contract/version.ts";
import { openClient } from "../../client/client.ts";
import { exists, readFileIfThere } from "../../host/files.ts";
import {
  catalogFile,
  configFile,
  daemonSocket,
  databaseFile,
  imageFiles,
  kernelFiles,
  serviceUnitFile,
} from "../../host/paths.ts";
import { installedUnit, unitText } from "../../host/service-unit.ts";
import { advise, type Check, fail, pass, warn } from "./check.ts";
import { readRecorded } from "./recorded.ts";
import { templatesCheck } from "./templates.ts";

const defaultsCheck = ({ vmDefaults: vm, origins }: Config): Check => ({
  name: "vm defaults",
  look: async () => {
    const from = (key: string) => `(${origins[`vm_defaults.${key}`]})`;
    return pass(
      `${vm.vcpu} vcpu ${from("vcpu")}, ${formatSize(vm.memory)} ${from("memory")}, ${formatSize(vm.diskSize)} disk ${from("disk_size")}, network ${vm.network} ${from("network")}`,
    );
  },
});

/** Only names are looked for; the daemon reads a catalog by its schema. */
const inCatalog = async (path: string, name: string): Promise<boolean> => {
  const catalog: unknown = JSON.parse(await readFile(path, "utf8"));
  return JSON.stringify(catalog).includes(`"name":${JSON.stringify(name)}`);
};

/** An image's file: banger's own, or the user's, which its manifest names. */
const rootfsOf = (name: string, manifest: string): { path: string; own: boolean } => {
  const { rootfs } = JSON.parse(manifest) as { rootfs?: { path?: unknown } };
  return typeof rootfs?.path === "string"
    ? { path: rootfs.path, own: true }
    : { path: imageFiles(name).rootfs, own: false };
};

const artifactCheck = (what: "image" | "kernel", name: string, catalogs: readonly string[]): Check => ({
  name: `default ${what}`,
  look: async () => {
    const manifest = (what === "image" ? imageFiles(name) : kernelFiles(name)).manifest;
    const text = await readFileIfThere(manifest);
    if (text !== undefined) {
      const { path, own } = what === "image" ? rootfsOf(name, text) : { path: kernelFiles(name).vmlinux, own: false };
      if (await exists(path)) return pass(`${name} is installed`);
      const missing = `${name} is there without its ${what === "image" ? "root file system" : "kernel"} (${path})`;
      if (own) return advise(fail(missing), "bring that file of yours back, or name another image in config.toml");
      return fail(missing, ["banger", what, "delete", name], ["banger", what, "pull", name]);
    }
    const readable = await Promise.all([...catalogs, catalogFile(`${what}s`)].filter(exists));
    const offered = await Promise.all(readable.map((path) => inCatalog(path, name).catch(() => false)));
    const pull = ["banger", what, "pull", name] as const;
    if (offered.includes(true))
      return pass(`${name} is not here yet: the first \`banger vm run\` pulls it, as does \`${pull.join(" ")}\``);
    // A reference to a registry is in no catalog.
    if (/[/:@]/.test(name)) return pass(`${name} is not here yet: \`${pull.join(" ")}\` pulls it from its registry`);
    return advise(
      fail(`${name} is neither installed nor in a catalog`),
      `see \`banger ${what} list --available\`, and correct \`default_${what}_name\` in config.toml`,
    );
  },
});

const catalogsCheck = ({ catalogs }: Config): Check => ({
  name: "catalogs",
  look: async () => {
    for (const path of catalogs) {
      try {
        JSON.parse(await readFile(path, "utf8"));
      } catch (error) {
        const why = errnoOf(error) === "ENOENT" ? "is not there" : `cannot be read: ${toBangerError(error).message}`;
        return advise(fail(`${path} ${why}`), "correct `catalogs` in config.toml");
      }
    }
    return pass(catalogs.join(", ") || "only the one that is shipped");
  },
});

const fileSyncCheck = ({ fileSync }: Config): Check => ({
  name: "file_sync",
  look: async () => {
    const found = await Promise.all(fileSync.map(async ({ host }) => ({ host, there: await exists(host) })));
    const missing = found.filter(({ there }) => !there).map(({ host }) => host);
    if (missing.length === 0) return pass(fileSync.map(({ host }) => host).join(", ") || "nothing is copied into VMs");
    return advise(
      warn(`skipped, because it is not there: ${missing.join(", ")}`),
      "correct [[file_sync]] in config.toml",
    );
  },
});

const NOT_A_DATABASE = 26;
const CORRUPT = 11;

const databaseCheck: Check = {
  name: "state database",
  look: async () => {
    const path = databaseFile();
    /** The daemon then starts with an empty list; the disks of VMs stay where they are. */
    const putAway = (message: string) =>
      advise(
        fail(`${path}: ${message}`, ["banger", "daemon", "stop"], ["mv", path, `${path}.damaged`]),
        "VMs are then no longer listed; their disks stay in the vms folder beside it. A backup of the file is better",
      );
    try {
      const found = await readRecorded(path);
      if (!found) return pass("made when the daemon first starts");
      if (found.damage.length > 0) return putAway(`damaged: ${found.damage[0]}`);
      return pass(`whole, format ${found.format}, ${found.vms.length} VMs`);
    } catch (error) {
      const code = error instanceof Error && "errcode" in error ? error.errcode : undefined;
      if (code === NOT_A_DATABASE || code === CORRUPT) return putAway(toBangerError(error).message);
      throw error;
    }
  },
};

const daemonCheck: Check = {
  name: "daemon",
  look: async () => {
    // Named, so that the client does not put the folder of sockets right before that is looked at.
    using client = openClient({ autostart: false, socketPath: daemonSocket() });
    try {
      const status = await client.call("status", {}, {});
      const found = `running, pid ${status.pid}, ${status.running} of ${status.vms} VMs running`;
      return status.build === buildId()
        ? pass(found)
        : warn(`${found}, of another build: the next command replaces it`, ["banger", "daemon", "start"]);
    } catch (error) {
      if (toBangerError(error).code !== "DAEMON_UNREACHABLE") throw error;
      return pass("not running: any command that needs it starts it");
    }
  },
};

const serviceCheck: Check = {
  name: "service",
  look: async () => {
    const unit = await installedUnit();
    if (unit === undefined) return pass("not installed: the daemon starts with the first command that needs it");
    if (unit !== unitText())
      return warn(`${serviceUnitFile()} is of another build or other folders of banger's`, [
        "banger",
        "daemon",
        "install",
      ]);
    return pass(serviceUnitFile());
  },
};

/** @param config undefined when it is not valid; `error` says why */
export const stateChecks = (config: Config | undefined, error: unknown): Check[] => {
  const configCheck: Check = {
    name: "config",
    look: async () => {
      if (!config) throw error;
      return pass((await exists(configFile())) ? configFile() : `${configFile()} is not there: all defaults`);
    },
  };
  if (!config) return [configCheck, databaseCheck, daemonCheck, serviceCheck];
  return [
    configCheck,
    defaultsCheck(config),
    fileSyncCheck(config),
    catalogsCheck(config),
    artifactCheck("kernel", config.vmDefaults.kernel, config.catalogs),
    artifactCheck("image", config.vmDefaults.image, config.catalogs),
    templatesCheck(config),
    databaseCheck,
    daemonCheck,
    serviceCheck,
  ];
};
