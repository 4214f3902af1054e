/** A guest runs VMs of its own only where the host's KVM lets it. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { nestedIsOff } from "./nested.ts";

test("a KVM whose nested virtualisation is off is named with what switches it on; both ways of saying on count", async () => {
  const folder = await mkdtemp(join(tmpdir(), "nested-"));
  const set = async (module: string, value: string) => {
    await mkdir(join(folder, module, "parameters"), { recursive: true });
    await writeFile(join(folder, module, "parameters", "nested"), `${value}\n`);
  };
  try {
    assert.match((await nestedIsOff(folder))?.reason ?? "", /does not say/);
    await set("kvm_amd", "0");
    const off = await nestedIsOff(folder);
    assert.match(off?.reason ?? "", /is off in this host's KVM \(kvm_amd\)/);
    assert.match(off?.hint ?? "", /sudo modprobe -r kvm_amd && sudo modprobe kvm_amd nested=1$/);
    for (const on of ["1", "Y"]) {
      await set("kvm_amd", on);
      assert.equal(await nestedIsOff(folder), undefined);
    }
    await set("kvm_intel", "N");
    assert.match((await nestedIsOff(folder))?.reason ?? "", /kvm_intel/);
  } finally {
    await rm(folder, { recursive: true });
  }
});
