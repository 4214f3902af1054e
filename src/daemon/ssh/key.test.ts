import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { makeKeyPair } from "./key.ts";

const run = promisify(execFile);

test("OpenSSH reads the keys, whatever the length of their comment, and signs with them", async () => {
  const folder = await mkdtemp(join(tmpdir(), "banger-key-"));
  try {
    for (const comment of ["", "banger", "a comment of 25 characters", "one with spaces, and ümlauts"]) {
      const { privateKey, publicKey } = await makeKeyPair(comment);
      const path = join(folder, "key");
      await writeFile(path, privateKey, { mode: 0o600 });
      await writeFile(`${path}.pub`, publicKey);
      const { stdout } = await run("ssh-keygen", ["-y", "-P", "", "-f", path]);
      assert.equal(stdout.trim(), publicKey.trim());
      await rm(join(folder, "text.sig"), { force: true });
      await writeFile(join(folder, "text"), "to be signed");
      await run("ssh-keygen", ["-Y", "sign", "-n", "test", "-f", path, join(folder, "text")]);
      assert.match(await readFile(join(folder, "text.sig"), "utf8"), /BEGIN SSH SIGNATURE/);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("no two keys are the same", async () => {
  const [one, two] = await Promise.all([makeKeyPair(""), makeKeyPair("")]);
  assert.notEqual(one.publicKey, two.publicKey);
});
