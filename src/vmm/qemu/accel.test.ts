import assert from "node:assert/strict";
import { test } from "node:test";
import { noLimits } from "../driver.ts";
import { emulatesInParallel } from "./accel.ts";
import { qemuArguments } from "./arguments.ts";

test("emulated CPUs run at once from QEMU 8.1 on, and in turns where the version is older or not known", () => {
  const said = [
    "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)",
    "QEMU emulator version 8.0.5",
    "QEMU emulator version 8.1.0",
    "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)",
    "",
  ];
  assert.deepEqual(said.map(emulatesInParallel), [false, false, true, true, false]);
});

test("what the probe found is what QEMU is told", () => {
  const spec = {
    name: "box",
    vcpu: 2,
    memory: 2 ** 28,
    kernel: "k",
    initramfs: "i",
    kernelArguments: [],
    disks: [],
    nic: undefined,
    sockets: { folder: "", agent: "", control: "", console: "" },
    log: "",
    networkLog: "",
    saving: "",
  };
  const accelOf = (accel: "tcg" | "kvm", parallel: boolean, nested = false) => {
    const argv = qemuArguments("qemu", { accel, parallel }, noLimits, { ...spec, nested }, [], undefined);
    return argv[argv.indexOf("-accel") + 1];
  };
  assert.deepEqual(
    [accelOf("tcg", true), accelOf("tcg", false), accelOf("tcg", false, true), accelOf("kvm", true)],
    ["tcg,thread=multi", "tcg,thread=single", "tcg,thread=multi", "kvm"],
  );
});
