import assert from "node:assert/strict";
import { test } from "node:test";
import { BangerError } from "../../contract/errors.ts";
import { vmStates } from "../../contract/names.ts";
import { nextState, transitions, vmEvents } from "./state.ts";

/** Every pair of state and event, spelled out: a change of the table must be a decision here too. */
const expected: Record<string, string> = {
  "stopped start": "starting",
  "stopped delete": "gone",
  "starting ready": "running",
  "starting stop": "stopping",
  "starting ended": "stopped",
  "running pause": "paused",
  "running sleep": "asleep",
  "running stop": "stopping",
  "running ended": "stopped",
  "paused resume": "running",
  "paused sleep": "asleep",
  "paused stop": "stopping",
  "paused ended": "stopped",
  "asleep start": "starting",
  "asleep delete": "gone",
  "stopping ended": "stopped",
};

for (const state of vmStates) {
  for (const event of vmEvents) {
    const next = expected[`${state} ${event}`];
    test(`${state} + ${event} is ${next ?? "refused"}`, () => {
      if (next) assert.equal(nextState("box", state, event), next);
      else
        assert.throws(
          () => nextState("box", state, event),
          (error) => error instanceof BangerError && error.code === "VM_WRONG_STATE",
        );
    });
  }
}

test("every state can be left and every state but the first is reached", () => {
  const reached = new Set(Object.values(transitions).flatMap((row) => Object.values(row)));
  for (const state of vmStates) {
    assert.ok(Object.keys(transitions[state]).length > 0, state);
    assert.ok(reached.has(state), state);
  }
});
