/** Hosts on which Firecracker cannot work, and releases of it that are special: each is named with what to do. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { requireKvm } from "./host.ts";
import { pauseCutsVsock, releaseIn, releaseNote } from "./release.ts";

test("a KVM that is not there, not allowed or of no use is told with its reason", async () => {
  const folder = await mkdtemp(join(tmpdir(), "fire-host-"));
  const { XDG_CACHE_HOME, XDG_STATE_HOME } = process.env;
  Object.assign(process.env, { XDG_CACHE_HOME: folder, XDG_STATE_HOME: folder });
  try {
    const qemu = join(folder, "qemu");
    await writeFile(qemu, "#!/bin/sh\necho 'kvm: no such luck' >&2\nexit 1\n", { mode: 0o755 });
    await assert.rejects(requireKvm(qemu), {
      code: "TOOL_MISSING",
      message:
        /^Firecracker needs KVM: (there is no \/dev\/kvm|\/dev\/kvm is there but this user|.* did not run: kvm: no such luck)/,
      hint: /banger doctor.*vmm = "qemu"/,
    });
  } finally {
    for (const [name, value] of Object.entries({ XDG_CACHE_HOME, XDG_STATE_HOME }))
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    await rm(folder, { recursive: true });
  }
});

test("a host that lets its users have no namespaces is told with the command that allows them", async () => {
  const look = `import(${JSON.stringify(join(import.meta.dirname, "host.ts"))}).then((host) => host.requireTap()).then(
    () => console.log("works"), ({ code, hint, details }) => console.log(JSON.stringify([code, hint, details.fix])))`;
  // A namespace of users in which there can be no further one.
  const script = 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$0" -e "$1"';
  const { stdout } = await promisify(execFile)("unshare", ["-Ur", "sh", "-c", script, process.execPath, look]);
  const [code, hint, fix] = JSON.parse(stdout) as [string, string, string[]];
  assert.equal(code, "TOOL_MISSING");
  assert.match(hint, /allow user namespaces: sudo sysctl -w user\.max_user_namespaces=15000/);
  assert.deepEqual(fix, ["sysctl", "-w", "user.max_user_namespaces=15000"]);
});

test("a release newer than those that are known is used with a word of warning; the one whose pause cuts vsock off is known", () => {
  assert.deepEqual(releaseIn("Firecracker v1.16.1\n\nexit"), [1, 16, 1]);
  assert.equal(releaseIn("something else"), undefined);
  assert.match(releaseNote([1, 18, 0]) ?? "", /newer than 1\.17.*vmm = "qemu"/);
  for (const known of [
    [1, 14, 0],
    [1, 16, 1],
    [1, 17, 3],
  ] as const)
    assert.equal(releaseNote(known), undefined);
  assert.deepEqual(
    (
      [
        [1, 15, 9],
        [1, 16, 0],
        [1, 16, 9],
        [1, 17, 0],
      ] as const
    ).map(pauseCutsVsock),
    [false, true, true, false],
  );
});
