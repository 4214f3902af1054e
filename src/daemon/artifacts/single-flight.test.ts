import assert from "node:assert/strict";
import { test } from "node:test";
import { type Progress, type ProgressEvent, throwIfAborted } from "../../contract/progress.ts";
import { singleFlight } from "./single-flight.ts";

const waiter = () => {
  const controller = new AbortController();
  const events: ProgressEvent[] = [];
  const progress: Progress = { signal: controller.signal, report: (event) => void events.push(event) };
  return { controller, events, progress };
};

/** Work that waits for `go`, or for its cancel, and counts. */
const slowWork = () => {
  const go = Promise.withResolvers<string>();
  const seen = { started: 0, cancelled: 0, cleaned: 0 };
  const work = async ({ signal, report }: Progress): Promise<string> => {
    seen.started++;
    report({ stage: "begun" });
    const aborted = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => aborted.resolve());
    await Promise.race([go.promise, aborted.promise]);
    if (signal.aborted) {
      seen.cancelled++;
      await new Promise((resolve) => setTimeout(resolve, 20));
      seen.cleaned++;
    }
    throwIfAborted(signal);
    report({ stage: "done" });
    return await go.promise;
  };
  return { go, seen, work };
};

const settled = () => new Promise((resolve) => setTimeout(resolve, 1));

test("all who ask share one run and its progress, also what was said before they came", async () => {
  const flight = singleFlight<string>();
  const { go, seen, work } = slowWork();
  const [a, b] = [waiter(), waiter()];
  const first = flight.run("x", a.progress, work);
  await settled();
  const second = flight.run("x", b.progress, work);
  await settled();
  go.resolve("made");
  assert.deepEqual(await Promise.all([first, second]), ["made", "made"]);
  assert.equal(seen.started, 1);
  for (const { events } of [a, b])
    assert.deepEqual(
      events.map(({ stage }) => stage),
      ["begun", "done"],
    );
});

test("one cancelled waiter does not take the others with it", async () => {
  const flight = singleFlight<string>();
  const { go, seen, work } = slowWork();
  const [a, b] = [waiter(), waiter()];
  const first = flight.run("x", a.progress, work);
  const second = flight.run("x", b.progress, work);
  a.controller.abort();
  await assert.rejects(first, { code: "CANCELLED" });
  go.resolve("made");
  assert.equal(await second, "made");
  assert.equal(seen.cancelled, 0);
});

test("the last cancelled waiter ends the work, and hears of it after the clean-up", async () => {
  const flight = singleFlight<string>();
  const { seen, work } = slowWork();
  const [a, b] = [waiter(), waiter()];
  const runs = [flight.run("x", a.progress, work), flight.run("x", b.progress, work)];
  await settled();
  a.controller.abort();
  b.controller.abort();
  for (const run of runs) await assert.rejects(run, { code: "CANCELLED" });
  assert.deepEqual(seen, { started: 1, cancelled: 1, cleaned: 1 });
});

test("whoever asks while a cancelled run cleans up starts anew", async () => {
  const flight = singleFlight<string>();
  const old = slowWork();
  const a = waiter();
  const first = flight.run("x", a.progress, old.work);
  await settled();
  a.controller.abort();
  await settled();
  const fresh = slowWork();
  fresh.go.resolve("second");
  const second = flight.run("x", waiter().progress, (progress) => {
    assert.equal(old.seen.cleaned, 1);
    return fresh.work(progress);
  });
  await assert.rejects(first, { code: "CANCELLED" });
  assert.equal(await second, "second");
});

test("a failure reaches all, and the next one may try again", async () => {
  const flight = singleFlight<string>();
  const fail = () => Promise.reject(new Error("broken"));
  const runs = [flight.run("x", waiter().progress, fail), flight.run("x", waiter().progress, fail)];
  for (const run of runs) await assert.rejects(run, /broken/);
  assert.equal(await flight.run("x", waiter().progress, async () => "fine"), "fine");
});

test("one who is cancelled before asking starts nothing", async () => {
  const flight = singleFlight<string>();
  const { seen, work } = slowWork();
  const a = waiter();
  a.controller.abort();
  await assert.rejects(flight.run("x", a.progress, work), { code: "CANCELLED" });
  assert.equal(seen.started, 0);
});
