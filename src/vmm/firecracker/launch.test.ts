/** What a program finds that the launcher starts in place of Firecracker, and how the two of them end. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { processEnds } from "../../../test/support/wait.ts";
import { agentBinary } from "../../host/paths.ts";
import { processUse } from "../../host/proc.ts";
import { type RunningProcess, startProcess } from "../../host/process.ts";
import { namespacesRefused } from "./host.ts";
import { needsOf } from "./program.ts";

const inFolder = async (use: (folder: string) => Promise<void>): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), "fire-"));
  try {
    await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
};

const launched = (flags: readonly string[], argv: readonly string[], cwd: string): Promise<RunningProcess> =>
  startProcess({
    argv: [agentBinary(), "--launch", ...flags, "--", ...argv],
    stdio: ["ignore", "pipe", "pipe", "ignore", "pipe"],
    env: { SECRET: "of the user" },
    cwd,
  });
const toldPid = async ({ child }: RunningProcess): Promise<number> => Number(await text(child.stdio[4] as Readable));

const look = `
import ctypes, os, socket
libc = ctypes.CDLL(None)
def refused(path, mode):
    try:
        open(path, mode).close()
        return 0
    except OSError as error:
        return error.errno
print(os.getpid(), os.getppid(), dict(os.environ).get("SECRET"))
print(*sorted(os.listdir("/")))
print(*sorted(os.listdir(".")))
print(open("mine/disk").read(), open("shared/image").read())
open("mine/disk", "w").write("written")
print(refused("shared/image", "w"), refused("shared/new", "w"), refused("hidden", "r"), refused("/new", "w"), refused("/proc/self/status", "r"))
print(*(name for _, name in socket.if_nameindex()))
print(max(libc.prctl(23, number, 0, 0, 0) for number in range(41)), libc.prctl(39, 0, 0, 0, 0))
`;

test("a program that is confined finds its own files, nothing of its user's, no other process, no network and no capability", () =>
  inFolder(async (folder) => {
    assert.equal(await namespacesRefused(), undefined);
    const place = (...names: string[]) => join(folder, ...names);
    for (const name of ["mine", "shared"]) await mkdir(place(name));
    for (const path of ["mine/disk", "shared/image", "shared/other", "hidden"]) await writeFile(place(path), path);
    const python = await realpath("/usr/bin/python3");
    const libraries = (await needsOf(python)) ?? [];
    assert.ok(libraries.includes("/usr/lib"), "python is linked dynamically");
    const flags = [...libraries, place("shared/image")].flatMap((path) => ["--read", path]);
    const script = `import os; os.chdir(${JSON.stringify(folder)})${look}`;
    await using running = await launched(
      ["--confine", ...flags, "--write", place("mine")],
      [python, "-Sc", script],
      place("mine"),
    );
    assert.ok(running.child.stdout);
    const output = await text(running.child.stdout);
    assert.equal((await running.exited).status, 0, running.stderrTail());
    const EROFS = 30;
    const ENOENT = 2;
    assert.deepEqual(output.trim().split("\n"), [
      "1 0 None",
      ["dev", ...new Set(libraries.map((path) => path.split("/")[1])), "tmp"].sort().join(" "),
      "mine shared",
      "mine/disk shared/image",
      `${EROFS} ${EROFS} ${ENOENT} ${EROFS} ${ENOENT}`,
      "lo",
      "0 1",
    ]);
    assert.equal(await readFile(place("mine/disk"), "utf8"), "written");
  }));

test("a static program needs nothing but itself, a script may need anything", () =>
  inFolder(async (folder) => {
    assert.deepEqual(await needsOf(agentBinary()), []);
    const script = join(folder, "script");
    await writeFile(script, "#!/bin/sh\n");
    assert.equal(await needsOf(script), undefined);
    await writeFile(script, "");
    assert.deepEqual(await needsOf(script), []);
  }));

const modes = [
  [
    "confined",
    async () => [
      "--confine",
      "--write",
      tmpdir(),
      ...((await needsOf(await sleep())) ?? []).flatMap((path) => ["--read", path]),
    ],
  ],
  ["with a tap", async () => ["--tap", "/dev/null"]],
  ["as it is", async () => []],
] as const;
const sleep = () => realpath("/bin/sleep");

for (const [name, flags] of modes)
  test(`${name}: the launcher tells the program's number, and each of the two ends with the other`, async () => {
    for (const end of ["program", "launcher", "asked"] as const) {
      await using running = await launched(await flags(), [await sleep(), "1000"], tmpdir());
      const pid = await toldPid(running);
      assert.ok(await processUse(pid));
      if (end === "program") process.kill(pid, "SIGKILL");
      else process.kill(running.pid, end === "launcher" ? "SIGKILL" : "SIGTERM");
      assert.deepEqual(await running.exited, { status: undefined, signal: "SIGKILL" });
      if (end === "launcher") await processEnds(pid);
      else assert.equal(await processUse(pid), undefined);
    }
  });

test("a program's own status and end are the launcher's; one that is not there is named", async () => {
  const ends = async (...argv: string[]) => {
    await using running = await launched([], argv, tmpdir());
    const { status, signal } = await running.exited;
    return [status ?? signal, running.stderrTail()];
  };
  assert.deepEqual(await ends("sh", "-c", "exit 7"), [7, ""]);
  assert.deepEqual(await ends("sh", "-c", "kill -ABRT $$"), ["SIGABRT", ""]);
  assert.deepEqual(await ends("/no/such/program"), [
    127,
    "banger-vsock-agent: /no/such/program: No such file or directory (os error 2)",
  ]);
});
