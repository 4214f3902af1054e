import assert from "node:assert/strict";
import { test } from "node:test";
import { inWorkspace } from "./image-defaults.ts";

const workspace = { path: "/root/repo", repository: "/home/me/repo" };
const TOOLS = "/root/.local/share/mise/shims";

test("root's commands begin in the workspace with its tools first on PATH, whatever image it is", () => {
  const { cwd, env } = inWorkspace({ argv: ["make"] }, workspace, { PATH: "/opt/bin:/bin" });
  assert.deepEqual([cwd, env], ["/root/repo", { PATH: `${TOOLS}:/opt/bin:/bin` }]);
  assert.match(inWorkspace({ argv: [] }, workspace, {}).env?.PATH ?? "", /shims:.*:\/bin$/);
  const there = { PATH: `/x:${TOOLS}:/bin` };
  assert.equal(inWorkspace({ argv: [] }, workspace, there).env, undefined);
});

test("what the caller says holds, and others than root are left where they are", () => {
  const given = inWorkspace({ argv: ["x"], cwd: "/", env: { PATH: "/only" } }, workspace, { PATH: "/bin" });
  assert.deepEqual([given.cwd, given.env], ["/", { PATH: "/only" }]);
  for (const user of ["nobody", "1000", "rooty"])
    assert.deepEqual(inWorkspace({ argv: ["x"], user }, workspace, {}), { argv: ["x"], user });
  assert.equal(inWorkspace({ argv: ["x"], user: "root:adm" }, workspace, {}).cwd, "/root/repo");
  assert.deepEqual(inWorkspace({ argv: ["x"] }, undefined, {}), { argv: ["x"] });
});
