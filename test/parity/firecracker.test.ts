/**
 * A real Firecracker, the one that FIRECRACKER_BIN names (linked statically where it must run in a VM): on this machine where KVM works, else in a VM
 * with `--nested`. `make test-firecracker`
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { probeAcceleration } from "../../src/vmm/qemu/accel.ts";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { installNested } from "../support/nested.ts";
import type { World } from "./behaviours.ts";
import { configure, hostWorld, nestedWorld, parityTests, stageTimes } from "./suite.ts";

const [GOLDEN, SLIM] = ["debian-bookworm", "debian-bookworm-slim"] as const;
const VMM = "firecracker/kvm";
const binary = process.env.FIRECRACKER_BIN ?? "";
let host: Host;
let world: World;

const here = async (): Promise<World> => {
  await configure(host, SLIM, `vmm = "firecracker"\nfirecracker_bin = "${binary}"\nserial_console = true`);
  await installFixture(host, [SLIM]);
  return hostWorld(host, VMM);
};

const inVm = async (): Promise<World> => {
  await installFixture(host, [GOLDEN, SLIM]);
  const shape = ["--nested", "--net", "user", "--vcpu", "1", "--memory", "2G", "--image", GOLDEN];
  const up = await host.banger("vm", "run", "-d", "--name", "box", ...shape);
  assert.equal(up.status, 0, up.stderr);
  const root = await installNested(host, "box", SLIM);
  const copied = await host.banger("vm", "cp", binary, "box:/opt/firecracker");
  assert.equal(copied.status, 0, copied.stderr);
  const settings = `vmm = "firecracker"\nfirecracker_bin = "/opt/firecracker"\nserial_console = true\n`;
  return nestedWorld(await root.withUser("dev", settings), VMM);
};

before(async () => {
  assert.ok(binary, "FIRECRACKER_BIN names no program");
  host = await testHost();
  process.env.XDG_CACHE_HOME = host.env.XDG_CACHE_HOME;
  const { accel } = await probeAcceleration("qemu-system-x86_64");
  world = accel === "kvm" ? await here() : await inVm();
});
after(() => host[Symbol.asyncDispose]());

test("which Firecracker this is", async (context) => {
  const { stdout } = await world.shell(
    "$(sed -n 's/^firecracker_bin = //p' $(banger config path) | tr -d '\"') --version",
  );
  assert.match(stdout, /Firecracker v/);
  context.diagnostic(stdout.split("\n")[0] ?? "");
});
parityTests("Firecracker", () => world);
stageTimes(() => world);
