import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { recipesFolder } from "../../host/paths.ts";
import { loadRecipe } from "./recipe.ts";

const golden = join(recipesFolder(), "golden");

test("the Dockerfile of the golden image is of the same packages, path and digests as its recipe", async () => {
  const { packages, boot, init, npm } = await loadRecipe("golden");
  const script = join(golden, "from-container.sh");
  const { stdout } = await promisify(execFile)("sh", [script, "packages", golden]);
  assert.deepEqual(stdout.trim().split("\n"), packages);
  const dockerfile = await readFile(join(golden, "Dockerfile"), "utf8");
  assert.ok(dockerfile.includes(`PATH=${boot.env.PATH}\n`) && dockerfile.includes(`LANG=${boot.env.LANG} `));
  assert.ok(dockerfile.includes(`CMD [${JSON.stringify(init)}]`) && dockerfile.includes(`WORKDIR ${boot.workdir}\n`));
  // What the script's patterns count on.
  const text = await readFile(join(golden, "recipe.json"), "utf8");
  const [program, more] = npm ?? [];
  assert.equal(more, undefined, "from-container.sh knows one package of npm");
  const [[from, to] = []] = Object.entries(program?.files ?? {});
  assert.ok(text.includes(`"files": { "${from}": "${to}" }\n`), "on a line of its own");
  for (const [key, value] of Object.entries({ ...program, files: "" }))
    if (value !== "") assert.equal(text.split(`"${key}": "${value}"`).length, 2, key);
});
