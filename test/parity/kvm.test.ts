/** QEMU with the real KVM, by an ordinary user: in a VM with `--nested`, which runs under TCG where the host has no KVM. `make test-kvm` */
import assert from "node:assert/strict";
import { after, before } from "node:test";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { installNested } from "../support/nested.ts";
import type { World } from "./behaviours.ts";
import { nestedWorld, parityTests, stageTimes } from "./suite.ts";

const IMAGES = ["debian-bookworm", "debian-bookworm-slim"] as const;
let host: Host;
let world: World;

before(async () => {
  host = await testHost();
  await installFixture(host, IMAGES);
  const [golden, slim] = IMAGES;
  const shape = ["--nested", "--net", "user", "--vcpu", "1", "--memory", "2G", "--image", golden];
  const up = await host.banger("vm", "run", "-d", "--name", "box", ...shape);
  assert.equal(up.status, 0, up.stderr);
  const root = await installNested(host, "box", slim);
  world = nestedWorld(await root.withUser("dev"), "qemu/kvm");
});
after(() => host[Symbol.asyncDispose]());

parityTests("QEMU, KVM", () => world);
stageTimes(() => world);
