/** Repositories of a test's own, brought into folders of this machine by the stream that a guest gets. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { errnoOf } from "../../src/contract/errors.ts";
import { startProcess } from "../../src/host/process.ts";
import { type ExportFormat, exportProgram } from "../../src/workspace/export.ts";
import type { Manifest, WorkspaceMode } from "../../src/workspace/manifest.ts";
import { type Difference, differenceFrom, planWorkspace, type WorkspacePlan } from "../../src/workspace/plan.ts";
import type { Wanted } from "../../src/workspace/state.ts";

const run = promisify(execFile);

/** Nothing of this machine's own settings counts. */
export const gitEnv = {
  PATH: process.env.PATH ?? "",
  HOME: "/nonexistent",
  GIT_CONFIG_NOSYSTEM: "1",
};

/** Git in a folder; its output has one character a byte. */
export const gitIn =
  (cwd: string) =>
  async (...args: string[]): Promise<string> =>
    (
      await run("git", ["-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", ...args], {
        cwd,
        env: gitEnv,
        encoding: "latin1",
        maxBuffer: 2 ** 28,
      })
    ).stdout;

/** Everything of a folder that could tell that somebody was there. */
export const traceOf = async (folder: string): Promise<string[]> => {
  const entries = await readdir(folder, { recursive: true, encoding: "buffer" });
  const lines = await Promise.all(
    [Buffer.from("."), ...entries].map(async (name) => {
      const place = Buffer.concat([Buffer.from(`${folder}/`), name]);
      const found = await lstat(place, { bigint: true });
      const data = found.isFile()
        ? createHash("sha256")
            .update(await readFile(place))
            .digest("hex")
        : found.isSymbolicLink()
          ? await readlink(place)
          : "";
      return `${name.toString("latin1")} ${found.mode} ${found.ino} ${found.size} ${found.mtimeNs} ${found.ctimeNs} ${data}`;
    }),
  );
  return lines.sort();
};

type Git = ReturnType<typeof gitIn>;
export type Brought = Difference & { plan: WorkspacePlan };

export type Repositories = AsyncDisposable & {
  /** Has all of them. */
  folder: string;
  fresh(what: string): Promise<string>;
  repository(what: string): Promise<{ path: string; git: Git }>;
  /** As `vm workspace prepare` does it. @param had what `target` has of an earlier time */
  bring(path: string, target: string, wanted?: Wanted & { mode?: WorkspaceMode }, had?: Manifest): Promise<Brought>;
  /** What `vm workspace export` gives of a folder. */
  patchOf(path: string, format: ExportFormat, base?: string): Promise<{ stdout: Buffer; stderr: Buffer }>;
  /** Hands a patch to git as a file. */
  applied(path: string, patch: Buffer, ...command: string[]): Promise<void>;
};

export const repositories = async (): Promise<Repositories> => {
  const folder = await mkdtemp(join(tmpdir(), "banger-workspace-"));
  let counter = 0;
  const fresh = async (what: string): Promise<string> => {
    const path = join(folder, `${what}-${counter++}`);
    await mkdir(path);
    return path;
  };
  return {
    folder,
    fresh,
    repository: async (what) => {
      const path = await fresh(what);
      const git = gitIn(path);
      await git("init", "--quiet");
      await git("config", "user.name", "Dev Eloper");
      await git("config", "user.email", "dev@example.org");
      return { path, git };
    },
    bring: async (path, target, wanted = {}, had) => {
      const staging = await fresh("staging");
      const { signal } = new AbortController();
      const plan = await planWorkspace(path, { mode: "shallow", ...wanted }, staging, signal);
      const difference = await differenceFrom(plan, had, staging, signal);
      for (const name of difference.removed)
        await rm(Buffer.concat([Buffer.from(`${target}/`), Buffer.from(name, "latin1")]), { force: true });
      await using tar = await startProcess({ argv: ["tar", "-x", "-C", target], stdio: ["pipe", "ignore", "pipe"] });
      if (!tar.child.stdin) throw new Error("no stdin");
      // tar does not read what follows the end of an archive; its status tells.
      await pipeline(difference.archive(), tar.child.stdin).catch((error: unknown) => {
        if (!["EPIPE", "ERR_STREAM_PREMATURE_CLOSE"].includes(errnoOf(error) ?? "")) throw error;
      });
      assert.equal((await tar.exited).status, 0, tar.stderrTail());
      return { plan, ...difference };
    },
    patchOf: async (path, format, base) => {
      const [program, ...args] = exportProgram(path, base, format);
      return await run(program, args, { env: gitEnv, encoding: "buffer", maxBuffer: 2 ** 28 });
    },
    applied: async (path, patch, ...command) => {
      const name = join(folder, `patch-${counter++}`);
      await writeFile(name, patch);
      await gitIn(path)(...command, name);
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
};
