// The placeholders are what a devcontainer.json holds.
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: they are text of that file
import assert from "node:assert/strict";
import { test } from "node:test";
import { devcontainerIn, parseJsonc, readDevcontainer, reportOf } from "./devcontainer.ts";

const read = (value: unknown) =>
  readDevcontainer(JSON.stringify(value), ".devcontainer/devcontainer.json", "/root/repo");
const fateOf = (value: unknown) => Object.fromEntries(read(value).keys.map(({ key, fate }) => [key, fate]));

test("what a VM can be is taken over", () => {
  const found = read({
    image: "mcr.example/devcontainers/base:bookworm",
    containerEnv: { A: "1", HERE: "${containerWorkspaceFolder}/bin" },
    remoteEnv: { A: "2" },
    remoteUser: "root",
    postCreateCommand: { one: "npm ci", two: ["echo", "it's", "$HOME"] },
    onCreateCommand: "first",
    forwardPorts: [3000, "localhost:5000", 3000],
    features: {
      "ghcr.io/devcontainers/features/node:1": { version: "20" },
      "ghcr.io/devcontainers/features/git:1": {},
    },
  });
  assert.deepEqual(found.env, { A: "2", HERE: "/root/repo/bin" });
  assert.deepEqual(found.commands, ["first", "npm ci", "'echo' 'it'\\''s' '$HOME'"]);
  assert.deepEqual(
    [found.image, found.ports, found.tools],
    ["mcr.example/devcontainers/base:bookworm", [3000, 5000], ["node@20"]],
  );
  assert.ok(found.keys.every(({ fate }) => fate === "honoured"));
  assert.equal(reportOf(found).length, 1);
});

test("what would reach the host is refused, what means nothing here is ignored, and every key is told of", () => {
  assert.deepEqual(
    fateOf({
      initializeCommand: "rm -rf ~",
      mounts: ["source=/,target=/host,type=bind"],
      runArgs: ["--privileged"],
      build: { dockerfile: "Dockerfile" },
      remoteUser: "vscode",
      containerEnv: { TOKEN: "${localEnv:TOKEN}", FINE: "1" },
      forwardPorts: ["db:5432", 0, 70000],
      customizations: {},
      postStartCommand: "x",
      features: { "ghcr.io/others/oddity:1": {}, "ghcr.io/devcontainers/features/go:1": { version: "1.22; reboot" } },
      somethingNew: 1,
      __proto__: undefined,
      constructor: 1,
    }),
    {
      initializeCommand: "refused",
      mounts: "refused",
      runArgs: "refused",
      build: "refused",
      remoteUser: "refused",
      containerEnv: "refused",
      forwardPorts: "refused",
      customizations: "ignored",
      postStartCommand: "ignored",
      features: "ignored",
      somethingNew: "ignored",
      constructor: "ignored",
    },
  );
  const found = read({
    containerEnv: { TOKEN: "${localEnv:TOKEN}", FINE: "1" },
    postCreateCommand: 3,
    image: "${localEnv:X}",
  });
  assert.deepEqual([found.env, found.commands, found.image], [{ FINE: "1" }, [], undefined]);
  assert.match(
    reportOf(found).join("\n"),
    /^.devcontainer\/devcontainer.json: refused: containerEnv \(TOKEN: .*\), postCreateCommand/m,
  );
});

test("comments and commas at the end are no error, other text is", () => {
  const text = '// a\n{ "a": "x // y", /* b, } */ "c": [1, 2,], "d": ",}",\n}\n';
  assert.deepEqual(parseJsonc(text), { a: "x // y", c: [1, 2], d: ",}" });
  for (const bad of ["", "[]", "{", '{"a": 1 "b": 2}', "null"])
    assert.throws(() => readDevcontainer(bad, "x", "/root/x"), SyntaxError);
});

test("the file is one that git tracks, and no link", () => {
  const entry = (path: string, mode = "100644") => ({ path, mode, oid: "0" });
  assert.equal(
    devcontainerIn([entry("a/.devcontainer.json"), entry(".devcontainer.json")])?.path,
    ".devcontainer.json",
  );
  assert.equal(devcontainerIn([entry(".devcontainer.json", "120000")]), undefined);
});
