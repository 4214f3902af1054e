import assert from "node:assert/strict";
import { test } from "node:test";
import { startCrowd } from "./crowd.ts";

test("the last of a crowd counts as many as the first, and the next who comes alone is alone", () => {
  const crowd = startCrowd(2);
  assert.equal(crowd.perCpu(), 1);
  const five = Array.from({ length: 5 }, () => crowd.join());
  assert.equal(crowd.perCpu(), 3);
  for (const one of five.slice(1)) one[Symbol.dispose]();
  assert.equal(crowd.perCpu(), 3);
  five[0]?.[Symbol.dispose]();
  assert.equal(crowd.perCpu(), 1);
});
