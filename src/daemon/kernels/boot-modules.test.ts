import assert from "node:assert/strict";
import { test } from "node:test";
import { resolveBootModules } from "./boot-modules.ts";

const dependencies = `kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz kernel/net/core/failover.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/virtio/virtio.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz
kernel/drivers/virtio/virtio_ring.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz
`;

test("each module comes after what it needs, once", () => {
  assert.deepEqual(resolveBootModules(dependencies, "", ["virtio_net", "virtio_rng"]), [
    "kernel/drivers/virtio/virtio_ring.ko.xz",
    "kernel/net/core/failover.ko.xz",
    "kernel/drivers/virtio/virtio.ko.xz",
    "kernel/drivers/net/virtio_net.ko.xz",
    "kernel/drivers/char/hw_random/virtio-rng.ko.xz",
  ]);
});

test("what the kernel has built in is left out; what it lacks is named", () => {
  assert.deepEqual(resolveBootModules(dependencies, "kernel/fs/overlayfs/overlay.ko\n", ["overlay"]), []);
  assert.throws(() => resolveBootModules(dependencies, "", ["virtio", "overlay"]), {
    code: "KERNEL_CORRUPT",
    message: /no overlay module/,
  });
});

test("a circle of modules ends", () => {
  assert.deepEqual(resolveBootModules("a/virtio.ko: a/b.ko\na/b.ko: a/virtio.ko\n", "", ["virtio"]), [
    "a/b.ko",
    "a/virtio.ko",
  ]);
});
