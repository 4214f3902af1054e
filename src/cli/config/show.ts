import type { Config } from "../../contract/config.ts";
import { configReference } from "../../contract/config-reference.ts";
import { formatDuration, formatSize } from "../../contract/names.ts";
import { formatHostPort } from "../../contract/ports.ts";
import { loadConfig } from "../../host/config.ts";
import { readFileIfThere } from "../../host/files.ts";
import { configFile } from "../../host/paths.ts";
import { lineOfKey } from "../../host/toml-lines.ts";
import { defineCommand } from "../command.ts";
import { table } from "../render/table.ts";

/** Each value as a person would write it. */
const written = (config: Config): Record<string, string> => ({
  log_level: config.logLevel,
  vmm: config.vmm,
  firecracker_bin: config.firecrackerBin,
  serial_console: String(config.serialConsole),
  qemu_bin: config.qemuBin,
  ssh_key_path: config.sshKeyPath,
  default_image_name: config.vmDefaults.image,
  default_kernel_name: config.vmDefaults.kernel,
  auto_stop_stale_after: config.autoStopStaleAfter === undefined ? "never" : formatDuration(config.autoStopStaleAfter),
  stats_poll_interval: formatDuration(config.statsPollInterval),
  boot_timeout: formatDuration(config.bootTimeout),
  debian_mirror: config.debianMirror ?? "of this machine",
  registry_mirrors: listed(Object.entries(config.registryMirrors).map(([name, to]) => `${name} by ${to.join(" ")}`)),
  insecure_registries: listed(config.insecureRegistries),
  catalogs: listed(config.catalogs),
  "vm_defaults.vcpu": String(config.vmDefaults.vcpu),
  "vm_defaults.memory": formatSize(config.vmDefaults.memory),
  "vm_defaults.disk_size": formatSize(config.vmDefaults.diskSize),
  "vm_defaults.network": config.vmDefaults.network,
  "network.dns": listening(config.network.dns),
  "network.web": listening(config.network.web),
  "limits.disk_bandwidth": rate(config.limits.diskBandwidth),
  "limits.network_bandwidth": rate(config.limits.networkBandwidth),
  file_sync: listed(config.fileSync.map(({ host, guest }) => `${host} to ${guest}`)),
});

const listening = (at: Config["network"]["dns"]): string => (at ? formatHostPort(at.address, at.port) : "off");

const rate = (bytes: number | undefined): string => (bytes === undefined ? "none" : `${formatSize(bytes)} a second`);
const listed = (items: readonly string[]): string => items.join(", ") || "none";

/** Each value for a program: sizes in bytes, times in milliseconds, null for none. */
const raw = (config: Config): Record<string, unknown> => ({
  ...written(config),
  serial_console: config.serialConsole,
  auto_stop_stale_after: config.autoStopStaleAfter ?? null,
  stats_poll_interval: config.statsPollInterval,
  boot_timeout: config.bootTimeout,
  debian_mirror: config.debianMirror ?? null,
  registry_mirrors: config.registryMirrors,
  insecure_registries: config.insecureRegistries,
  catalogs: config.catalogs,
  "vm_defaults.vcpu": config.vmDefaults.vcpu,
  "vm_defaults.memory": config.vmDefaults.memory,
  "vm_defaults.disk_size": config.vmDefaults.diskSize,
  "limits.disk_bandwidth": config.limits.diskBandwidth ?? null,
  "limits.network_bandwidth": config.limits.networkBandwidth ?? null,
  file_sync: config.fileSync,
});

export const command = defineCommand({
  usage: [""],
  description:
    "FROM is the line of config.toml, `host` (worked out from this machine) or `built in`. A change of the file counts from the\nnext command on; VMs that run keep what they were started with.",
  args: [],
  argv: "none",
  flags: {},
  examples: [
    ["banger config show", "every setting, its value and where that comes from"],
    ["banger config show --json", "the same for a program: sizes in bytes, times in ms"],
  ],
  run: async () => {
    const config = await loadConfig();
    const text = (await readFileIfThere(configFile())) ?? "";
    const [values, shown] = [raw(config), written(config)];
    const rows = configReference.map(({ key }) => ({
      key,
      value: values[key],
      shown: shown[key] ?? "",
      from: config.origins[key] ?? "built in",
      line: config.origins[key] === "config" ? lineOfKey(text, key.split(".")) : undefined,
    }));
    return {
      data: rows.map(({ key, value, from, line }) => ({ key, value, from, ...(line === undefined ? {} : { line }) })),
      text: table(
        ["KEY", "VALUE", "FROM"],
        rows.map(({ key, shown, from, line }) => [key, shown, line === undefined ? from : `line ${line}`]),
      ),
    };
  },
});
