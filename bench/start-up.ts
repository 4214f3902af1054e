/** What the CLI costs before it does anything: `banger version` against `node -e 0` of the same Node. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Host } from "../test/support/host.ts";
import { type Figure, interleaved, median, round, spreadOf } from "./measure.ts";

const run = promisify(execFile);
const build = join(import.meta.dirname, "..", "build");

export const startUp = async (host: Host): Promise<Figure[]> => {
  const env = { ...process.env, ...host.env };
  const [ours = [], bare = []] = await interleaved(40, [
    () => run(join(build, "bin", "banger"), ["version"], { env }),
    () => run(join(build, "lib", "node"), ["-e", "0"], { env }),
  ]);
  const ratio = median(ours) / median(bare);
  return [
    {
      what: "`banger version`",
      value: round(median(ours)),
      unit: "ms",
      n: ours.length,
      spread: spreadOf(ours),
      baseline: { what: "`node -e 0` of the same Node", value: round(median(bare)) },
      limit: `at most 1.3 times: ${ratio.toFixed(2)}`,
      holds: ratio <= 1.3,
    },
  ];
};
