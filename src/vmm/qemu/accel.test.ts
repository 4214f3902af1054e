import assert from "node:assert/strict";
import { test } from "node:test";
import { emulatesInParallel } from "./accel.ts";

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
