import assert from "node:assert/strict";
import { test } from "node:test";
import { type Accel, noLimits } from "../driver.ts";
import { qemuArguments } from "./arguments.ts";

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

/** The word behind `option`. */
const told = (option: string, accel: Accel, parallel: boolean, nested: boolean): string | undefined => {
  const argv = qemuArguments("qemu", { accel, parallel }, noLimits, { ...spec, nested }, [], undefined);
  return argv[argv.indexOf(option) + 1];
};

test("the CPU has SVM and VMX only where that was asked for", () => {
  const cpuOf = (accel: Accel, nested: boolean) => told("-cpu", accel, true, nested);
  assert.deepEqual(
    [cpuOf("tcg", false), cpuOf("tcg", true), cpuOf("kvm", false), cpuOf("kvm", true)],
    ["max,erms=off,fsrm=off,svm=off", "max,erms=off,fsrm=off", "host,svm=off,vmx=off", "host"],
  );
});

test("what the probe found is what QEMU is told", () => {
  const accelOf = (accel: Accel, parallel: boolean, nested = false) => told("-accel", accel, parallel, nested);
  assert.deepEqual(
    [accelOf("tcg", true), accelOf("tcg", false), accelOf("tcg", false, true), accelOf("kvm", true)],
    ["tcg,thread=multi", "tcg,thread=single", "tcg,thread=multi", "kvm"],
  );
});
