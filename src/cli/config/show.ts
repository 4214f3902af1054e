import type { Config } from "../../contract/config.ts";
import { formatSize } from "../../contract/names.ts";
import { loadConfig } from "../../host/config.ts";
import { defineCommand } from "../command.ts";
import { table } from "../render/table.ts";

/** Each key of the file with its value as a person would write it. */
export const settings = (config: Config): [key: string, value: string][] => [
  ["log_level", config.logLevel],
  ["vmm", config.vmm],
  ["firecracker_bin", config.firecrackerBin],
  ["qemu_bin", config.qemuBin],
  ["ssh_key_path", config.sshKeyPath],
  ["default_image_name", config.vmDefaults.image],
  ["default_kernel_name", config.vmDefaults.kernel],
  ["auto_stop_stale_after", config.autoStopStaleAfter === undefined ? "never" : `${config.autoStopStaleAfter / 1000}s`],
  ["stats_poll_interval", `${config.statsPollInterval / 1000}s`],
  ["boot_timeout", `${config.bootTimeout / 1000}s`],
  ["boot_timeout", `${config.bootTimeout / 1000}s`],
  ["debian_mirror", config.debianMirror ?? "of this machine"],
  ["registry_mirrors", Object.keys(config.registryMirrors).join(", ") || "none"],
  ["vm_defaults.vcpu", String(config.vmDefaults.vcpu)],
  ["vm_defaults.memory", formatSize(config.vmDefaults.memory)],
  ["vm_defaults.disk_size", formatSize(config.vmDefaults.diskSize)],
  ["vm_defaults.network", config.vmDefaults.network],
  ["file_sync", config.fileSync.map(({ host }) => host).join(", ") || "none"],
];

export const command = defineCommand({
  usage: [""],
  args: [],
  argv: "none",
  flags: {},
  examples: [["banger config show", "every setting, its value and where that comes from"]],
  run: async () => {
    const config = await loadConfig();
    const rows = settings(config).map(([key, value]) => [key, value, config.origins[key] ?? ""]);
    return { data: config, text: table(["KEY", "VALUE", "FROM"], rows) };
  },
});
