import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePlanLine } from "./archive.ts";
import { aptError } from "./run-apt.ts";

const digest = "c4945123d66d0503ba42e2fc0585abc76d0838978c6d277b9cc37a4da25d1a34";

test("a line of apt's plan gives name, version with epoch, size and digest", () => {
  const line = `'http://one.test/pool/a/attr/libattr1_2.5.1-4_amd64.deb' libattr1_1%3a2.5.1-4_amd64.deb 22164 SHA256:${digest}`;
  assert.deepEqual(parsePlanLine(line), [
    { file: "libattr1_1%3a2.5.1-4_amd64.deb", name: "libattr1", version: "1:2.5.1-4", size: 22164, sha256: digest },
  ]);
});

test("lines without a sha256, and other lines, are no plan", () => {
  for (const line of [
    "",
    "Reading package lists...",
    "'http://x/a.deb' a_1_all.deb 12 MD5Sum:abc",
    "'x' ../a_1_all.deb 12",
  ]) {
    assert.deepEqual(parsePlanLine(line), []);
  }
});

test("apt's messages are told apart", () => {
  const codeOf = (line: string) => aptError("http://m.test", [line], "apt-get ended with status 100").code;
  const cases: [string, string][] = [
    [
      "E: Failed to fetch http://m.test/x  Could not connect to m.test:80 (1.2.3.4). - connect (111: Connection refused)",
      "MIRROR_UNREACHABLE",
    ],
    ["E: Failed to fetch http://m.test/x  Temporary failure resolving 'm.test'", "MIRROR_UNREACHABLE"],
    ["E: Failed to fetch http://m.test/x  Connection timed out", "MIRROR_UNREACHABLE"],
    ["E: The repository 'http://m.test bookworm Release' does not have a Release file.", "MIRROR_UNREACHABLE"],
    ["E: The repository 'http://m.test bookworm InRelease' is not signed.", "MIRROR_UNTRUSTED"],
    ["W: GPG error: http://m.test InRelease: NO_PUBKEY 0E98404D386FA1D9", "MIRROR_UNTRUSTED"],
    ["E: Failed to fetch http://m.test/x  Hash Sum mismatch", "MIRROR_UNTRUSTED"],
    ["E: Write error - write (28: No space left on device)", "DISK_FULL"],
    ["E: You don't have enough free space in /x/archives/.", "DISK_FULL"],
    ["E: Unable to locate package nonsense", "TOOL_FAILED"],
  ];
  for (const [line, code] of cases) assert.equal(codeOf(line), code, line);
});
