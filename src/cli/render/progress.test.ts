import assert from "node:assert/strict";
import { describe, mock, test } from "node:test";
import { progressDisplay, shapeLine } from "./progress.ts";
import { age, printable, table } from "./table.ts";

/** A display on a clock of the test's own. */
const display = (live: boolean, columns = 60) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  const written: string[] = [];
  const shown = progressDisplay({ live, columns: () => columns, write: (text) => written.push(text), now: () => now });
  const tick = (ms: number) => {
    for (let left = ms; left > 0; left -= 10) {
      now += 10;
      mock.timers.tick(10);
    }
  };
  return { ...shown, written, tick, [Symbol.dispose]: () => mock.timers.reset() };
};

describe("progress without a terminal", () => {
  test("what is done within a second is not talked about", () => {
    using shown = display(false);
    shown.report({ stage: "boot" });
    shown.tick(900);
    shown.clear();
    shown.tick(5000);
    assert.deepEqual(shown.written, []);
  });

  test("one plain line a stage, and one every ten seconds of the same", () => {
    using shown = display(false);
    shown.report({ stage: "packages", done: 0, total: 10, unit: "packages" });
    shown.tick(1100);
    for (let done = 1; done <= 10; done++) {
      shown.report({ stage: "packages", done, total: 10, unit: "packages" });
      shown.tick(1500);
    }
    shown.report({ stage: "boot", message: "waiting for the guest" });
    shown.tick(100);
    assert.deepEqual(shown.written, [
      "packages: 0 of 10 packages\n",
      "packages: 7 of 10 packages\n",
      "boot: waiting for the guest\n",
    ]);
  });

  test("nothing in it moves a cursor", () => {
    using shown = display(false);
    shown.report({ stage: "x", message: "\x1b[2J\x07evil\r\n" });
    shown.tick(1100);
    assert.match(shown.written.join(""), /^x: [^\p{Cc}]*\n$/u);
  });
});

describe("progress on a terminal", () => {
  test("one live line with amount and rate, taken away at the end", () => {
    using shown = display(true);
    shown.report({ stage: "download", message: "linux-image", done: 0, total: 64 * 2 ** 20, unit: "bytes" });
    shown.tick(2000);
    shown.report({ stage: "download", message: "linux-image", done: 16 * 2 ** 20, total: 64 * 2 ** 20, unit: "bytes" });
    shown.tick(200);
    const [clear, text = ""] = (shown.written.at(-1) ?? "").split("\x1b[K");
    assert.equal(clear, "\r");
    assert.match(text, /^download: linux-image, 16 MiB of 64 MiB, 7\.\d MiB\/s$/);
    shown.clear();
    assert.equal(shown.written.at(-1), "\r\x1b[K");
  });

  test("the line fits the terminal", () => {
    using shown = display(true, 20);
    shown.report({ stage: "boot", message: "x".repeat(100) });
    shown.tick(1100);
    assert.equal((shown.written.at(-1) ?? "").replace("\r\x1b[K", "").length, 19);
  });

  test("many events are few drawings", () => {
    using shown = display(true);
    for (let done = 0; done < 1000; done++) {
      shown.report({ stage: "copy", done, unit: "bytes" });
      shown.tick(10);
    }
    assert.ok(shown.written.length > 50 && shown.written.length <= 100, String(shown.written.length));
  });
});

test("the shape of a VM in one line", () => {
  const vm = { image: "debian-bookworm", vcpu: 2, memory: 2 ** 31, diskSize: 2 ** 33, vmm: "qemu", accel: "tcg" };
  assert.equal(shapeLine(vm), "debian-bookworm, 2 vcpu, 2 GiB, 8 GiB disk, qemu/tcg");
});

test("tables", () => {
  assert.equal(
    table(
      ["NAME", "N"],
      [
        ["a\x1b[1m", "1"],
        ["long name", "22"],
      ],
    ),
    "NAME       N\na?[1m      1\nlong name  22",
  );
  assert.equal(printable("a\nb"), "a?b");
  assert.deepEqual([age(0, 59_999), age(0, 3_600_000), age(0, 172_800_000), age(5, 0)], ["59s", "1h", "2d", "0s"]);
});
