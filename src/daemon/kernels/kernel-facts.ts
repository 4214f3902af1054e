/** What an ELF kernel says of itself: its release, and with CONFIG_IKCONFIG how it was configured. */
import { promisify } from "node:util";
import { gunzip } from "node:zlib";

/** `Linux version 6.1.0-56-cloud-amd64 (…` */
const BANNER = Buffer.from("Linux version ");
const LONGEST_RELEASE = 64;

/** As `uname -r` tells it, or undefined. */
export const releaseOf = (vmlinux: Buffer): string | undefined => {
  for (let at = vmlinux.indexOf(BANNER); at !== -1; at = vmlinux.indexOf(BANNER, at + 1)) {
    const start = at + BANNER.length;
    const [release] =
      /^[0-9][A-Za-z0-9._+~-]*(?= )/.exec(vmlinux.toString("latin1", start, start + LONGEST_RELEASE)) ?? [];
    if (release !== undefined) return release;
  }
  return undefined;
};

const CONFIG_START = Buffer.from("IKCFG_ST");
const CONFIG_END = Buffer.from("IKCFG_ED");
const MAX_CONFIG = 4 * 1024 * 1024;

/** The kernel's `.config`, or undefined where it was built without it. */
export const configOf = async (vmlinux: Buffer): Promise<string | undefined> => {
  const start = vmlinux.indexOf(CONFIG_START);
  const end = vmlinux.indexOf(CONFIG_END, start);
  if (start === -1 || end === -1) return undefined;
  try {
    const config = await promisify(gunzip)(vmlinux.subarray(start + CONFIG_START.length, end), {
      maxOutputLength: MAX_CONFIG,
    });
    return config.toString("latin1");
  } catch {
    // Whatever it is, it is no configuration.
    return undefined;
  }
};

/** What a guest needs before it can reach its disks and the daemon. */
const NEEDED = [
  "CONFIG_BLK_DEV_INITRD",
  "CONFIG_DEVTMPFS",
  "CONFIG_VIRTIO_MMIO",
  "CONFIG_VIRTIO_BLK",
  "CONFIG_VIRTIO_NET",
  "CONFIG_VIRTIO_CONSOLE",
  "CONFIG_EXT4_FS",
  "CONFIG_OVERLAY_FS",
];

/** Options that a kernel without modules would have to have built in, and has not. None where it does not tell. */
export const lackingOptions = async (vmlinux: Buffer): Promise<string[]> => {
  const config = await configOf(vmlinux);
  if (config === undefined) return [];
  const lines = new Set(config.split("\n"));
  return NEEDED.filter((option) => !lines.has(`${option}=y`));
};
