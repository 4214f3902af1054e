/** Which modules the initramfs carries, and in which order they load. */
import { BangerError } from "../../contract/errors.ts";

/** What a guest needs before its modules disk is mounted. One that the kernel has built in is skipped. */
export const BOOT_MODULES = [
  "virtio",
  "virtio_ring",
  "virtio_mmio",
  "virtio_blk",
  "failover",
  "net_failover",
  "virtio_net",
  "overlay",
  "virtio_console",
  "rng-core",
  "virtio-rng",
  // Last, and loaded only where there is such a device: the channel to the host under Firecracker.
  "vmw_vsock_virtio_transport",
] as const;

/** Modules that may be absent altogether: a kernel without them still boots. */
const OPTIONAL = new Set([
  "virtio_ring",
  "virtio",
  "failover",
  "net_failover",
  "rng_core",
  "virtio_rng",
  "vmw_vsock_virtio_transport",
]);

/** `kernel/drivers/virtio/virtio_mmio.ko.xz` as `virtio_mmio`: the kernel takes `-` and `_` as one. */
const moduleName = (path: string): string =>
  (path.split("/").at(-1) ?? "").replace(/\.ko(?:\.(?:xz|zst|gz))?$/, "").replaceAll("-", "_");

/**
 * Paths of the wanted modules with all that they need, each after what it needs.
 * @param dependencies text of `modules.dep`
 * @param builtin text of `modules.builtin`
 * @throws KERNEL_CORRUPT when a needed module is neither there nor built in
 */
export const resolveBootModules = (
  dependencies: string,
  builtin: string,
  wanted: readonly string[] = BOOT_MODULES,
): string[] => {
  const needs = new Map<string, string[]>();
  const pathOf = new Map<string, string>();
  for (const line of dependencies.split("\n")) {
    const colon = line.indexOf(":");
    if (colon < 0) continue;
    const path = line.slice(0, colon).trim();
    needs.set(
      path,
      line
        .slice(colon + 1)
        .split(/\s+/)
        .filter(Boolean),
    );
    pathOf.set(moduleName(path), path);
  }
  const builtIn = new Set(builtin.split("\n").filter(Boolean).map(moduleName));
  const order: string[] = [];
  const seen = new Set<string>();
  const visit = (path: string): void => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const need of needs.get(path) ?? []) visit(need);
    order.push(path);
  };
  for (const name of wanted.map((entry) => entry.replaceAll("-", "_"))) {
    const path = pathOf.get(name);
    if (path !== undefined) visit(path);
    else if (!builtIn.has(name) && !OPTIONAL.has(name)) {
      throw new BangerError("KERNEL_CORRUPT", `the kernel has no ${name} module`, {
        hint: "choose a kernel with virtio: `banger kernel list --available`",
      });
    }
  }
  return order;
};
