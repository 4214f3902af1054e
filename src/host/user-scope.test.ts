/** When a VM's processes may be handed to the user's systemd. That it takes them is told by a real one: test/e2e/service.test.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isUnderUserSystemd } from "./user-scope.ts";

test("only below the user's own systemd: in a session it would end with the last of them", () => {
  const below = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/bangerd.service\n";
  assert.equal(isUnderUserSystemd(below, 1000), true);
  assert.equal(isUnderUserSystemd(`1:name=systemd:/\n${below}`, 1000), true);
  assert.equal(isUnderUserSystemd(below, 100), false);
  assert.equal(isUnderUserSystemd("0::/user.slice/user-1000.slice/session-2.scope\n", 1000), false);
  assert.equal(isUnderUserSystemd("9:name=systemd:/user.slice/user-1000.slice/user@1000.service\n0::/\n", 1000), false);
});
