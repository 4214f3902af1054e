import assert from "node:assert/strict";
import { test } from "node:test";
import { padded } from "./initramfs.ts";

test("an initramfs leaves the last page to the firmware's tables, and is what it was up to there", () => {
  for (const length of [1, 4, 5, 4095, 4096, 4100, 4101, 2_899_212]) {
    const archive = Buffer.alloc(length, 7);
    const whole = padded(archive);
    assert.equal(whole.length % 4096, 4, `${length}`);
    assert.ok(whole.length >= length && whole.length < length + 4096, `${length}`);
    assert.ok(whole.subarray(0, length).equals(archive));
    assert.ok(whole.subarray(length).every((byte) => byte === 0));
  }
});
