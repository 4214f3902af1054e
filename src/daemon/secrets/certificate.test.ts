import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { authorityCertificate, hostCertificate, newKeyPair } from "./certificate.ts";
import { integer, sequence, time } from "./der.ts";

const run = promisify(execFile);

test("OpenSSL takes the certificates at its strictest, for the host that they are for", async () => {
  const folder = await mkdtemp(join(tmpdir(), "banger-certificates-"));
  try {
    const [authority, host] = await Promise.all([newKeyPair(), newKeyPair()]);
    const ca = join(folder, "ca.pem");
    await writeFile(ca, authorityCertificate(authority));
    const long = `${"a".repeat(60)}.${"b".repeat(60)}.${"c".repeat(60)}.example.com`;
    for (const [name, flag, other] of [
      ["api.example.com", "-verify_hostname", "example.com"],
      [long, "-verify_hostname", "api.example.com"],
      ["192.168.1.5", "-verify_ip", "192.168.1.6"],
    ] as const) {
      const leaf = join(folder, "leaf.pem");
      await writeFile(leaf, hostCertificate(name, host.publicKey, authority));
      const verify = (target: string) =>
        run("openssl", ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca, flag, target, leaf]);
      assert.match((await verify(name)).stdout, /: OK/);
      await assert.rejects(verify(other), /mismatch/);
    }
    // A host's certificate vouches for nobody.
    const deeper = join(folder, "deeper.pem");
    await writeFile(deeper, hostCertificate("x.example.com", authority.publicKey, host));
    await assert.rejects(run("openssl", ["verify", "-CAfile", ca, "-untrusted", join(folder, "leaf.pem"), deeper]));
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("Node reads what was written", async () => {
  const authority = await newKeyPair();
  const ca = new X509Certificate(authorityCertificate(authority));
  const leaf = new X509Certificate(hostCertificate("api.example.com", authority.publicKey, authority));
  assert.deepEqual(
    [ca.ca, leaf.ca, leaf.subjectAltName, leaf.checkIssued(ca), leaf.verify(authority.publicKey)],
    [true, false, "DNS:api.example.com", true, true],
  );
  assert.ok(ca.checkPrivateKey(authority.privateKey));
});

test("lengths, numbers and times in DER", () => {
  assert.deepEqual([...sequence(Buffer.alloc(127))].slice(0, 2), [0x30, 127]);
  assert.deepEqual([...sequence(Buffer.alloc(128))].slice(0, 3), [0x30, 0x81, 128]);
  assert.deepEqual([...sequence(Buffer.alloc(256))].slice(0, 4), [0x30, 0x82, 1, 0]);
  assert.deepEqual([...integer(Uint8Array.of(0, 0, 0x80))], [2, 2, 0, 0x80]);
  assert.deepEqual([...integer(Uint8Array.of(0))], [2, 1, 0]);
  assert.equal(String(time(new Date("2049-12-31T23:59:59.9Z")).subarray(2)), "491231235959Z");
  assert.equal(String(time(new Date("2050-01-01T00:00:00Z")).subarray(2)), "20500101000000Z");
});
