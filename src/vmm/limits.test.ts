/** Limits of the config reach each VMM in its own words. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { faultIn, readDescription } from "../../test/fake-firecracker/description.ts";
import { noLimits } from "./driver.ts";
import { configuration } from "./firecracker/arguments.ts";
import { qemuArguments } from "./qemu/arguments.ts";

const limits = { diskBandwidth: 1_000_000, networkBandwidth: 2_000_000 };
const spec = {
  name: "box",
  vcpu: 1,
  memory: 2 ** 28,
  nested: false,
  kernel: "k",
  initramfs: "i",
  kernelArguments: [],
  disks: [true, false, true].map((readonly) => ({ path: "d", readonly })),
  nic: { mac: "02:00:00:00:00:01", rules: "", enforce: false },
  sockets: { folder: "", agent: "", control: "", console: "" },
  log: "",
  networkLog: "",
  saving: "",
};

test("Firecracker's own disk and its card get buckets that fill in a second, as its description has them; the shared disks none", async () => {
  const { drives, nic } = configuration(spec, "agent", { limits, serial: false });
  const bucket = (size: number) => ({ bandwidth: { size, refill_time: 1000 } });
  assert.deepEqual(
    drives.map((drive) => drive.rate_limiter),
    [undefined, bucket(1_000_000), undefined],
  );
  assert.deepEqual([nic?.rx_rate_limiter, nic?.tx_rate_limiter], [bucket(2_000_000), bucket(2_000_000)]);
  const description = await readDescription();
  for (const drive of drives) assert.equal(faultIn(description, "#Drive", drive), undefined);
  assert.equal(faultIn(description, "#NetworkInterface", nic), undefined);
  assert.ok(
    !JSON.stringify(configuration(spec, "agent", { limits: noLimits, serial: false })).includes("rate_limiter"),
  );
});

test("QEMU's own disk is throttled, the shared disks are not", () => {
  const drives = (given: typeof noLimits) =>
    qemuArguments("qemu", { accel: "kvm", parallel: true }, given, spec, [], undefined).filter((word) =>
      word.startsWith("id=disk"),
    );
  assert.deepEqual(
    drives(limits).map((drive) => /,throttling\.bps-total=1000000$/.test(drive)),
    [false, true, false],
  );
  assert.ok(!drives(noLimits).join().includes("throttling"));
});
