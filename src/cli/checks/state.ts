/** Config, images, kernels, keys, sockets and the daemon. */
import { lstat, readFile, stat } from "node:fs/promises";
import type { Config } from "../../contract/config.ts";
import { errnoOf, toBangerError } from "../../contract/errors.ts";
import { formatSize } from "../../contract/names.ts";
import { buildId } from "../../contract/version.ts";
import { openClient } from "../../client/client.ts";
import { exists } from "../../host/files.ts";
import { catalogFile, configFile, imageFiles, kernelFiles, roots } from "../../host/paths.ts";
import { type Check, type CheckResult, fail, pass, warn } from "./check.ts";

const defaultsCheck = ({ vmDefaults: vm, origins }: Config): Check => ({
  name: "vm defaults",
  look: async () => {
    const from = (key: string) => `(${origins[`vm_defaults.${key}`]})`;
    return pass(
      `${vm.vcpu} vcpu ${from("vcpu")}, ${formatSize(vm.memory)} ${from("memory")}, ${formatSize(vm.diskSize)} disk ${from("disk_size")}, network ${vm.network} ${from("network")}`,
    );
  },
});

const artifactCheck = (what: "image" | "kernel", name: string): Check => ({
  name: `default ${what}`,
  look: async () => {
    const files = what === "image" ? imageFiles(name) : kernelFiles(name);
    if (await exists(files.manifest)) return pass(`${name} is installed`);
    const catalog: unknown = JSON.parse(await readFile(catalogFile(`${what}s`), "utf8"));
    // Only names are looked for; the daemon reads it by its schema.
    const known = JSON.stringify(catalog).includes(`"name":${JSON.stringify(name)}`);
    if (known)
      return pass(
        `${name} is not here yet: the first \`banger vm run\` pulls it, as does \`banger ${what} pull ${name}\``,
      );
    return fail(`${name} is neither installed nor in the catalog`, `banger ${what} list --available`);
  },
});

const keyCheck = ({ sshKeyPath, sshKeyIsOurs }: Config): Check => ({
  name: "ssh key",
  look: async () => {
    try {
      const { mode } = await stat(sshKeyPath);
      return (mode & 0o077) === 0
        ? pass(sshKeyPath)
        : fail(`${sshKeyPath} can be read by others, so ssh refuses it`, `chmod 600 '${sshKeyPath}'`);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      if (sshKeyIsOurs) return pass("made when the first VM starts");
      return fail(
        `\`ssh_key_path\` names ${sshKeyPath}, which is not there`,
        `ssh-keygen -t ed25519 -f '${sshKeyPath}'`,
      );
    }
  },
});

const socketsCheck: Check = {
  name: "sockets",
  look: async (): Promise<CheckResult> => {
    const { runtime } = roots();
    try {
      const found = await lstat(runtime);
      if (found.isSymbolicLink() || !found.isDirectory()) return fail(`${runtime} is no folder`, `rm '${runtime}'`);
      if (found.uid !== process.getuid?.())
        return fail(
          `${runtime} belongs to another user`,
          "export XDG_RUNTIME_DIR=$HOME/.run && mkdir -m 700 -p $HOME/.run",
        );
      if ((found.mode & 0o077) !== 0) return fail(`${runtime} is open to others`, `chmod 700 '${runtime}'`);
      return pass(runtime);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      return pass(`${runtime}, made by the first command`);
    }
  },
};

const daemonCheck: Check = {
  name: "daemon",
  look: async () => {
    using client = openClient({ autostart: false });
    try {
      const status = await client.call("status", {}, {});
      const found = `running, pid ${status.pid}, ${status.running} of ${status.vms} VMs running`;
      return status.build === buildId()
        ? pass(found)
        : warn(`${found}, of another build: the next command replaces it`, "banger daemon start");
    } catch (error) {
      if (toBangerError(error).code !== "DAEMON_UNREACHABLE") throw error;
      return pass("not running: any command that needs it starts it");
    }
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
  if (!config) return [configCheck, socketsCheck, daemonCheck];
  return [
    configCheck,
    defaultsCheck(config),
    artifactCheck("kernel", config.vmDefaults.kernel),
    artifactCheck("image", config.vmDefaults.image),
    keyCheck(config),
    socketsCheck,
    daemonCheck,
  ];
};
