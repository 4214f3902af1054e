/** `vm cp` of a large file against `scp` to the same guest. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Host } from "../test/support/host.ts";
import { type Figure, interleaved, median, round, spreadOf } from "./measure.ts";

const run = promisify(execFile);
const VM = "bench-copy";
const MIB = 200;

const makeFile = async (path: string): Promise<void> => {
  const file = await open(path, "w");
  for (let i = 0; i < MIB; i++) await file.write(randomBytes(2 ** 20));
  await file.close();
};

export const copySpeed = async (host: Host): Promise<Figure[]> => {
  const source = join(host.env.HOME, "source.bin");
  const back = join(host.env.HOME, "back.bin");
  await makeFile(source);
  const banger = async (...args: string[]) => {
    const done = await host.banger(...args);
    if (done.status !== 0) throw new Error(done.stderr);
  };
  const config = join(host.env.XDG_CONFIG_HOME, "banger", "ssh_config");
  const scp = (from: string, to: string) =>
    run("scp", ["-F", config, from, to], { env: { ...process.env, ...host.env } });
  await banger("vm", "run", "-d", "--name", VM, "--vcpu", "2", "--memory", "1G");
  const [inOurs = [], inScp = [], outOurs = [], outScp = []] = await interleaved(10, [
    () => banger("vm", "cp", source, `${VM}:/root/a.bin`),
    () => scp(source, `${VM}.vm:/root/b.bin`),
    () => banger("vm", "cp", `${VM}:/root/a.bin`, back),
    () => scp(`${VM}.vm:/root/b.bin`, back),
  ]);
  await banger("vm", "delete", VM);
  await Promise.all([source, back].map((path) => rm(path)));
  const rate = (ms: number) => round((MIB * 1.048576) / (ms / 1000));
  const figure = (what: string, ours: readonly number[], theirs: readonly number[]): Figure => {
    const ratio = median(theirs) / median(ours);
    const [fast, slow] = spreadOf(ours);
    return {
      what,
      value: rate(median(ours)),
      unit: "MB/s",
      n: ours.length,
      spread: [rate(slow), rate(fast)],
      baseline: { what: "`scp` of the same file to the same guest", value: rate(median(theirs)) },
      limit: `at least 2 times as fast: ${ratio.toFixed(2)}`,
      holds: ratio >= 2,
    };
  };
  return [
    figure(`\`vm cp\` of ${MIB} MiB into the guest`, inOurs, inScp),
    figure(`\`vm cp\` of ${MIB} MiB out of the guest`, outOurs, outScp),
  ];
};
