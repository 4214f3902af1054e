import assert from "node:assert/strict";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import type { Config } from "../contract/config.ts";
import { BangerError } from "../contract/errors.ts";
import { openSettings } from "./settings.ts";

let folder: string;
let path: string;
let changes: Config[];
let complaints: unknown[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-settings-"));
  path = join(folder, "config.toml");
  changes = [];
  complaints = [];
});
afterEach(() => rm(folder, { recursive: true }));

const open = () =>
  openSettings({
    path,
    onChange: async (config) => void changes.push(config),
    onInvalid: (error) => complaints.push(error),
  });
const isInvalid = (error: unknown) => error instanceof BangerError && error.code === "INVALID_CONFIG";

test("a change of the file, its first appearance and its going away count at once", async () => {
  const settings = await open();
  assert.equal((await settings.current()).logLevel, "info");
  await writeFile(path, 'log_level = "warn"\n');
  assert.equal((await settings.current()).logLevel, "warn");
  // As an editor saves: another file of the same size takes its place.
  await writeFile(`${path}.new`, 'log_level = "info"\n');
  await rename(`${path}.new`, path);
  await settings.refresh();
  assert.equal(settings.latest.logLevel, "info");
  await writeFile(path, 'log_level = "debug"\n');
  await rm(path);
  assert.equal((await settings.current()).logLevel, "info");
  assert.deepEqual(
    changes.map(({ logLevel }) => logLevel),
    ["warn", "info", "info"],
  );
});

test("an unchanged file is not taken up again", async () => {
  await writeFile(path, 'log_level = "warn"\n');
  const settings = await open();
  await Promise.all([settings.current(), settings.refresh(), settings.current()]);
  assert.equal(changes.length, 0);
});

test("while the file is not valid the settings before it stay, and who needs them afresh is refused", async () => {
  await writeFile(path, 'log_level = "warn"\n');
  const settings = await open();
  await writeFile(path, 'log_level = "loud"\n');
  await settings.refresh();
  await settings.refresh();
  assert.equal(settings.latest.logLevel, "warn");
  assert.equal(complaints.length, 1);
  assert.ok(isInvalid(complaints[0]));
  await assert.rejects(settings.current(), isInvalid);
  await writeFile(path, 'log_level = "error"\n');
  assert.equal((await settings.current()).logLevel, "error");
});

test("a file that is not valid at the start is an error", async () => {
  await writeFile(path, "log_level = 3\n");
  await assert.rejects(open(), isInvalid);
});
