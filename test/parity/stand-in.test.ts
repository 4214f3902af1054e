/** The Firecracker driver over the stand-in, with a whole guest behind it. `make test-parity` */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before } from "node:test";
import { probeAcceleration } from "../../src/vmm/qemu/accel.ts";
import { installFake } from "../fake-firecracker/install.ts";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { configure, hostWorld, parityTests } from "./suite.ts";

const SLIM = "debian-bookworm-slim";
let host: Host;

/** The daemon takes a note of its own that KVM works, since the stand-in needs none. */
const pretendKvm = async (): Promise<void> => {
  for (const name of ["XDG_CACHE_HOME", "XDG_STATE_HOME"] as const) process.env[name] = host.env[name];
  await probeAcceleration("qemu-system-x86_64");
  const note = join(host.env.XDG_CACHE_HOME, "banger", "kvm-probe.json");
  await writeFile(note, JSON.stringify({ ...JSON.parse(await readFile(note, "utf8")), accel: "kvm" }));
};

before(async () => {
  host = await testHost();
  const folder = join(host.env.HOME, "fake");
  await mkdir(folder);
  const { path } = await installFake(folder, { version: "1.17.0" }, true);
  await configure(host, SLIM, `vmm = "firecracker"\nfirecracker_bin = "${path}"\nserial_console = true`);
  await installFixture(host, [SLIM]);
  await pretendKvm();
});
after(() => host[Symbol.asyncDispose]());

parityTests("Firecracker's stand-in", () => hostWorld(host, "firecracker/kvm"));
