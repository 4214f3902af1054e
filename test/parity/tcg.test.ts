/** QEMU without KVM. `make test-parity` */
import { after, before } from "node:test";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { configure, hostWorld, parityTests } from "./suite.ts";

const SLIM = "debian-bookworm-slim";
let host: Host;

before(async () => {
  host = await testHost();
  await configure(host, SLIM, 'vmm = "qemu"');
  await installFixture(host, [SLIM]);
});
after(() => host[Symbol.asyncDispose]());

parityTests("QEMU, TCG", () => hostWorld(host, "qemu/tcg"));
