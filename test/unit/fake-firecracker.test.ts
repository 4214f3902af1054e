/** The stand-in is as strict as Firecracker's own description says, and its table is that description. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { readFileIfThere } from "../../src/host/files.ts";
import { callOf, faultIn, readDescription, whenLegal } from "../fake-firecracker/description.ts";

/** The official file, where it lies in a `shared` folder beside the project. */
const official = async (): Promise<string | undefined> => {
  for (let folder = join(import.meta.dirname, "../.."); folder !== "/"; folder = dirname(folder)) {
    const text = await readFileIfThere(join(folder, "../shared/firecracker/firecracker-1.16.1.yaml"));
    if (text !== undefined) return text;
  }
  return undefined;
};

/** Lines below a heading, until the next one as far to the left. */
const below = (text: string, heading: string): string => {
  const start = text.indexOf(`\n${heading}:\n`);
  assert.ok(start >= 0, `${heading} is described`);
  const body = text.slice(start + heading.length + 3);
  const indent = heading.search(/\S/);
  const end = body.search(new RegExp(`^ {0,${indent}}\\S`, "m"));
  return end < 0 ? body : body.slice(0, end);
};

test("the table has the calls, fields and requirements of the official description", async () => {
  const description = await readDescription();
  const text = (await official()) ?? (await asText());
  const paths = below(text, "paths");
  for (const call of Object.keys(description.calls)) {
    const [method = "", path = ""] = call.split(" ");
    assert.match(below(`\n${paths}`, `  ${path}`), new RegExp(`^ {4}${method.toLowerCase()}:$`, "m"), call);
  }
  const methods = [...paths.matchAll(/^ {4}(?:get|put|patch|delete|post):$/gm)];
  assert.equal(methods.length, Object.keys(description.calls).length, "no call is left out");
  const definitions = below(text, "definitions");
  for (const [name, type] of Object.entries(description.types)) {
    if (typeof type === "string" || !("properties" in type)) continue;
    const definition = below(`\n${definitions}`, `  ${name}`);
    const properties = [...below(`\n${definition}`, "    properties").matchAll(/^ {6}([\w-]+):$/gm)].map(
      ([, key]) => key,
    );
    assert.deepEqual(properties, Object.keys(type.properties), name);
    const listed = definition.includes("\n    required:\n") || definition.startsWith("    required:\n");
    const required = listed
      ? [...below(`\n${definition}`, "    required").matchAll(/^ {6}- (\w+)$/gm)].map(([, key]) => key)
      : [];
    assert.deepEqual(required, type.required, name);
  }
});

/** Without the official file the table stands for it: written out in the same layout. */
const asText = async (): Promise<string> => {
  const { calls, types } = JSON.parse(
    await readFile(join(import.meta.dirname, "../fake-firecracker/api.json"), "utf8"),
  ) as Awaited<ReturnType<typeof readDescription>>;
  const byPath = Map.groupBy(Object.keys(calls), (call) => call.split(" ")[1] ?? "");
  const paths = [...byPath].map(
    ([path, all]) =>
      `  ${path}:\n${all.map((call) => `    ${call.split(" ")[0]?.toLowerCase()}:\n      x: y\n`).join("")}`,
  );
  const definitions = Object.entries(types).map(([name, type]) => {
    if (typeof type === "string" || !("properties" in type)) return `  ${name}:\n    type: string\n`;
    const required =
      type.required.length > 0 ? `    required:\n${type.required.map((key) => `      - ${key}\n`).join("")}` : "";
    return `  ${name}:\n    type: object\n${required}    properties:\n${Object.keys(type.properties)
      .map((key) => `      ${key}:\n`)
      .join("")}`;
  });
  return `\npaths:\n${paths.join("")}\ndefinitions:\n${definitions.join("")}`;
};

test("what the description does not allow is refused", async () => {
  const description = await readDescription();
  const drive = { drive_id: "a", is_root_device: false };
  const faults: [string, unknown, RegExp][] = [
    ["#Drive", { drive_id: "a" }, /missing field `is_root_device`/],
    ["#Drive", { ...drive, colour: "red" }, /unknown field `colour`/],
    ["#Drive", { ...drive, is_read_only: "yes" }, /is_read_only: must be a boolean/],
    ["#Drive", { ...drive, cache_type: "Fast" }, /must be one of Unsafe, Writeback/],
    ["#Drive", { ...drive, rate_limiter: { ops: { size: -1, refill_time: 1 } } }, /size: must be at least 0/],
    ["#MachineConfiguration", { vcpu_count: 33, mem_size_mib: 1 }, /at most 32/],
    ["#MachineConfiguration", { vcpu_count: 1.5, mem_size_mib: 1 }, /an integer/],
    [
      "#SnapshotLoadParams",
      { snapshot_path: "x", network_overrides: [{ iface_id: "a" }] },
      /missing field `host_dev_name`/,
    ],
    ["#Vsock", [], /must be an object/],
  ];
  for (const [type, body, fault] of faults) assert.match(faultIn(description, type, body) ?? "", fault);
  assert.equal(
    faultIn(description, "#Drive", { ...drive, rate_limiter: { ops: { size: 1, refill_time: 1 } } }),
    undefined,
  );
  assert.deepEqual(callOf(description, "PUT", "/drives/disk0"), { call: "PUT /drives/{drive_id}", id: "disk0" });
  assert.equal(callOf(description, "PUT", "/drives/a/b"), undefined);
  assert.equal(callOf(description, "DELETE", "/vm"), undefined);
  assert.deepEqual(
    ["PUT /vsock", "PATCH /vm", "GET /", "PATCH /machine-config", "PATCH /drives/{drive_id}"].map(whenLegal),
    ["before", "after", "any", "before", "after"],
  );
});
