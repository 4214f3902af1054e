/** What a Tab costs: the question that the scripts of `banger completion` ask, beside the start of the same Node. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Host, testHost } from "../test/support/host.ts";
import { recordVms } from "../test/support/recorded-vms.ts";
import { type Figure, interleaved, median, round, spreadOf } from "./measure.ts";

const run = promisify(execFile);
const build = join(import.meta.dirname, "..", "build");
const VMS = 100;

export const completion = async (_host: Host): Promise<Figure[]> => {
  await using host = await testHost();
  await recordVms(
    host,
    Array.from({ length: VMS }, (_, index) => `vm-${index}`),
  );
  await host.banger("daemon", "start");
  const env = { ...process.env, ...host.env };
  const banger = join(build, "bin", "banger");
  const [names = [], bare = []] = await interleaved(40, [
    () => run(banger, ["complete", "bash", "3", "--", "banger", "vm", "stop", "vm-"], { env }),
    () => run(join(build, "lib", "node"), ["-e", "0"], { env }),
  ]);
  return [
    {
      what: `completing the names of ${VMS} VMs`,
      value: round(median(names)),
      unit: "ms",
      n: names.length,
      spread: spreadOf(names),
      baseline: { what: "`node -e 0` of the same Node", value: round(median(bare)) },
      limit: "at most 100 ms",
      holds: median(names) <= 100,
    },
  ];
};
