import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { vmRow } from "../../../test/support/vm-row.ts";
import type { VmActor } from "./actor.ts";
import { autoStop } from "./auto-stop.ts";

const log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  close: async () => undefined,
};
const MINUTE = 60_000;

/** Actors that are idle since the time given for each, with their own settings; and what was stopped. */
const setup = (idle: Record<string, number | undefined>, own: Record<string, number> = {}) => {
  const stopped: string[] = [];
  const settings: { staleAfter: number | undefined } = { staleAfter: undefined };
  const actors = Object.keys(idle).map(
    (name) => ({ row: () => vmRow({ name, autoStop: own[name] }), idleSince: () => idle[name] }) as unknown as VmActor,
  );
  const stopper = autoStop({
    actors: () => actors,
    staleAfter: () => settings.staleAfter,
    stop: async (actor, _after, due) => {
      if (!due()) return;
      stopped.push(actor.row().name);
      idle[actor.row().name] = undefined;
    },
    log,
  });
  return { stopped, settings, stopper, actors };
};

const settle = async () => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
};

test("a VM is stopped when it is due, not before, and use puts it off", async () => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 0 });
  try {
    const idle: Record<string, number | undefined> = { box: 0, fox: 10 * MINUTE, never: 0, busy: undefined };
    const { stopped, settings, stopper, actors } = setup(idle, { never: 0 });
    settings.staleAfter = 30 * MINUTE;
    stopper.plan();
    await settle();
    assert.equal(stopper.at(actors[0] as VmActor), 30 * MINUTE);
    assert.equal(stopper.at(actors[2] as VmActor), undefined);
    mock.timers.tick(29 * MINUTE);
    await settle();
    assert.deepEqual(stopped, []);
    idle.box = 29 * MINUTE;
    mock.timers.tick(MINUTE);
    await settle();
    assert.deepEqual(stopped, [], "it was used meanwhile");
    mock.timers.tick(10 * MINUTE);
    await settle();
    assert.deepEqual(stopped, ["fox"]);
    mock.timers.tick(60 * MINUTE);
    await settle();
    assert.deepEqual(stopped, ["fox", "box"]);
    stopper.close();
  } finally {
    mock.timers.reset();
  }
});

test("a VM's own setting counts before the config's, and a change of either counts at once", async () => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 100 * MINUTE });
  try {
    const { stopped, settings, stopper } = setup({ box: 0, own: 0 }, { own: 200 * MINUTE });
    stopper.plan();
    await settle();
    assert.deepEqual(stopped, []);
    settings.staleAfter = MINUTE;
    stopper.plan();
    await settle();
    assert.deepEqual(stopped, ["box"]);
    stopper.close();
    mock.timers.tick(200 * MINUTE);
    await settle();
    assert.deepEqual(stopped, ["box"], "a daemon that ends stops nothing more");
  } finally {
    mock.timers.reset();
  }
});
