/** The README's first five minutes, word by word: every line of it is run as it stands there. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { installFixture } from "../support/fixture.ts";
import { bangerBinary, type Host, testHost } from "../support/host.ts";

let host: Host;
let folder: string;

before(async () => {
  host = await testHost(`[vm_defaults]\nvcpu = 2\nmemory = "768M"\n`);
  await installFixture(host, ["debian-bookworm"]);
  folder = join(host.env.HOME, "work");
  await mkdir(join(folder, "app"), { recursive: true });
  await writeFile(join(folder, "app", "main.c"), "int main;\n");
  await mkdir(join(folder, "repo"));
  await writeFile(join(folder, "repo", "Makefile"), "test:\n\t@echo tested\n");
  const done = await typed(
    "cd repo && git init -q && git add . && git -c user.name=me -c user.email=me@example.org commit -qm first",
  );
  assert.equal(done.status, 0, done.stderr);
});
after(() => host[Symbol.asyncDispose]());

/** Lines that begin with `$` in the block after a heading, without their comments. */
const commandsAfter = (page: string, heading: string): string[] => {
  const [, block = ""] = new RegExp(`^## ${heading}\\n+\`\`\`console\\n(.*?)^\`\`\``, "ms").exec(page) ?? [];
  return [...block.matchAll(/^\$ (.*?)(?:\s+#.*)?$/gm)].map(([, command = ""]) => command);
};

/** As typed into a shell with banger on its PATH; what would be typed into a shell of the VM is empty. */
const typed = (command: string): Promise<{ status: number; stdout: string; stderr: string }> =>
  new Promise((resolve) => {
    const env = { ...process.env, ...host.env, PATH: `${dirname(bangerBinary)}:${process.env.PATH}` };
    const child = execFile("bash", ["-c", command], { env, cwd: folder, timeout: 240_000 }, (error, stdout, stderr) => {
      resolve({ status: error === null ? 0 : Number(error.code ?? -1), stdout, stderr });
    });
    child.stdin?.end();
  });

test("the first five minutes", async () => {
  const page = await readFile(join(import.meta.dirname, "..", "..", "README.md"), "utf8");
  const commands = commandsAfter(page, "The first five minutes");
  assert.ok(commands.length >= 8, commands.join("\n"));
  const said = new Map<string, string>();
  for (const command of commands) {
    const done = await typed(command);
    assert.equal(done.status, 0, `${command}\n${done.stdout}${done.stderr}`);
    said.set(command, done.stdout);
    if (command.includes("vm cp"))
      assert.equal((await host.banger("exec", "box", "--", "cat", "/srv/app/main.c")).stdout, "int main;\n");
  }
  const answer = (part: string) => [...said].find(([command]) => command.includes(part))?.[1] ?? "";
  assert.match(answer("git --version"), /^git version 2\./);
  assert.match(answer("make test"), /^tested$/m);
  assert.match(answer("vm list"), /^NAME .*\nbox +running/);
  assert.match(answer("doctor"), /^pass +architecture/m);
  assert.deepEqual(await host.json("vm", "list"), []);
});
