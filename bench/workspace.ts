/** A repository of 20,000 files brought to a guest, against git and rsync over ssh; brought again; and a review of what the guest has done to it. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { appendFile, mkdir, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Host } from "../test/support/host.ts";
import { startInTerminal } from "../test/support/terminal.ts";
import { type Figure, interleaved, median, round, spreadOf, timed } from "./measure.ts";

const run = promisify(execFile);
const VM = "bench-workspace";
const FILES = 20_000;
/** Bytes of a file, on average: 300 MB in all. */
const SIZE = 15_000;
const CHANGED = 5000;

/** Text that packs about as well as sources do, and is the same each time. */
const contents = (seed: number): string => {
  const lines: string[] = [];
  let state = seed + 1;
  for (let size = 0; size < SIZE / 2 + (seed % SIZE); ) {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    const line = `  const value${state % 977} = compute${state % 89}(${state.toString(36)}, ${(state * 7) % 65_521});\n`;
    lines.push(line);
    size += line.length;
  }
  return lines.join("");
};
const pathOf = (index: number): string =>
  `src/part${index % 200}/module${Math.floor(index / 200) % 10}/file${index}.ts`;

const makeRepository = async (repo: string, git: (...args: string[]) => Promise<unknown>): Promise<void> => {
  for (let part = 0; part < 200; part++)
    for (let inner = 0; inner < 10; inner++)
      await mkdir(join(repo, `src/part${part}/module${inner}`), { recursive: true });
  for (let index = 0; index < FILES; index++) await writeFile(join(repo, pathOf(index)), contents(index));
  await git("init", "--quiet", "--initial-branch=main");
  await git("add", "--all");
  await git("commit", "--quiet", "-m", "first");
  for (let commit = 0; commit < 12; commit++) {
    for (let index = commit; index < FILES; index += 2000)
      await appendFile(join(repo, pathOf(index)), `// ${commit}\n`);
    await git("commit", "--quiet", "--all", "-m", `change ${commit}`);
  }
  for (let index = 0; index < 50; index++) await appendFile(join(repo, pathOf(index * 311)), "// not committed\n");
};

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
};

export const workspaceSpeed = async (host: Host): Promise<Figure[]> => {
  const repo = join(host.env.HOME, "big");
  await mkdir(repo);
  const env = { ...process.env, ...host.env, GIT_CONFIG_NOSYSTEM: "1" };
  const git = (...args: string[]) =>
    run("git", ["-c", "user.name=me", "-c", "user.email=me@example.org", ...args], {
      cwd: repo,
      env,
      maxBuffer: 2 ** 28,
    });
  await makeRepository(repo, git);
  const banger = async (...args: string[]) => {
    const done = await host.run(args, { timeout: 600_000 });
    if (done.status !== 0) throw new Error(done.stderr);
    return done.stdout;
  };
  await banger("vm", "run", "-d", "--name", VM, "--image", "debian-bookworm", "--vcpu", "2", "--memory", "2G");
  const port = await freePort();
  const daemon = spawn(
    "git",
    ["daemon", "--export-all", "--listen=127.0.0.1", `--port=${port}`, `--base-path=${host.env.HOME}`, "--verbose"],
    { env, stdio: ["ignore", "ignore", "pipe"] },
  );
  // It says so when it listens.
  await once(daemon.stderr, "data");
  daemon.stderr.resume();
  const config = join(host.env.XDG_CONFIG_HOME, "banger", "ssh_config");
  const theirs = async () => {
    await run(
      "ssh",
      [
        "-F",
        config,
        "-R",
        `9418:127.0.0.1:${port}`,
        `${VM}.vm`,
        "git clone --quiet --depth 10 git://127.0.0.1/big /root/theirs",
      ],
      { env },
    );
    await run(
      "rsync",
      ["--archive", "--exclude=.git", "-e", `ssh -F ${config}`, `${repo}/`, `${VM}.vm:/root/theirs/`],
      { env },
    );
  };
  const prepare = () => banger("vm", "workspace", "prepare", VM, repo);
  const clear = () =>
    banger(
      "vm",
      "exec",
      VM,
      "--cwd",
      "/",
      "--",
      "sh",
      "-c",
      "rm -rf /root/big /root/theirs /var/lib/banger/workspaces; sync",
    );
  const first: number[] = [];
  const baseline: number[] = [];
  for (let turn = 0; turn < 3; turn++) {
    await clear();
    const [ours = [], others = []] = await interleaved(1, [prepare, theirs]);
    first.push(...ours);
    baseline.push(...others);
  }
  daemon.kill();

  const second: number[] = [];
  for (let turn = 0; turn < 10; turn++) {
    for (let index = 0; index < 10; index++)
      await appendFile(join(repo, pathOf(turn * 1000 + index * 7)), `// edit ${turn}\n`);
    second.push(await timed(prepare));
  }

  const paths = Array.from({ length: CHANGED }, (_, index) => pathOf(index)).join("\0");
  await host.run(["vm", "exec", VM, "--", "xargs", "-0", "sed", "-i", "1s/const/let/"], {
    input: paths,
    timeout: 600_000,
  });
  const review: number[] = [];
  const names: number[] = [];
  for (let turn = 0; turn < 5; turn++) {
    const start = performance.now();
    await using terminal = await startInTerminal(host, ["vm", "workspace", "review", VM]);
    // More files than the screen has rows for, the first of them under the cursor.
    await terminal.shows(/ \d{2,} files, .*> \[[. ]\] M .*src\/part/s);
    review.push(performance.now() - start);
    await terminal.shows(`${CHANGED} files`);
    names.push(performance.now() - start);
    terminal.type("q");
    await terminal.end();
  }
  await banger("vm", "delete", VM);

  const ratio = median(baseline) / median(first);
  const figure = (what: string, times: readonly number[], limit: number): Figure => ({
    what,
    value: round(median(times)),
    unit: "ms",
    n: times.length,
    spread: spreadOf(times),
    limit: `at most ${limit} ms`,
    holds: median(times) <= limit,
  });
  return [
    {
      what: `\`vm workspace prepare\` of ${FILES} files, 300 MB`,
      value: round(median(first)),
      unit: "ms",
      n: first.length,
      spread: spreadOf(first),
      baseline: {
        what: "`git clone --depth 10` and `rsync` of the working tree, over ssh to the same guest",
        value: round(median(baseline)),
      },
      limit: `at least as fast: ${ratio.toFixed(2)}`,
      holds: ratio >= 1,
    },
    figure("the same again after 10 edits", second, 1000),
    figure(`a review of ${CHANGED} changed files shows a screenful of them`, review, 1000),
    { ...figure("the same until it has counted all of them", names, 0), limit: "none", holds: true },
  ];
};
