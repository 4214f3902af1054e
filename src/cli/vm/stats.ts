import { formatSize } from "../../contract/names.ts";
import type { StatsLine, VmStats } from "../../contract/vms.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { watchFlag } from "../flags/watch.ts";
import { interruptible } from "../interrupt.ts";
import { jsonLines, printJsonLine, redraw } from "../render/lines.ts";
import { table } from "../render/table.ts";
import { resolveVm } from "../several.ts";

const size = (bytes: number | undefined): string => (bytes === undefined ? "" : formatSize(Math.round(bytes)));
const pair = (used: number | undefined, all: number | undefined): string =>
  used === undefined || all === undefined ? "" : `${size(used)} of ${size(all)}`;

const listing = (vms: readonly VmStats[]): string =>
  table(
    ["NAME", "CPU", "MEMORY", "GUEST MEMORY", "DISK", "GUEST DISK", "READ", "WRITTEN", "NET IN", "NET OUT", "TASKS"],
    vms.map(({ name, cpu, memory, disk, network, guest }) => [
      name,
      cpu === undefined ? "" : `${cpu.toFixed(1)} %`,
      size(memory.pss ?? memory.rss),
      guest ? pair(guest.memory.total - guest.memory.available, guest.memory.total) : "",
      pair(disk.used, disk.size),
      guest ? pair(guest.disk.total - guest.disk.free, guest.disk.total) : "",
      size(disk.read),
      size(disk.written),
      size((network ?? guest?.network)?.received),
      size((network ?? guest?.network)?.sent),
      guest ? String(guest.processes) : "",
    ]),
  );

export const command = defineCommand({
  usage: ["[--watch] [VM...]"],
  description:
    "CPU is of one host CPU. MEMORY is what the VM takes of the host's, pages shared with other VMs by their share; DISK what its\nown disk takes, READ and WRITTEN what its guest moved from and to it. The guest's own figures are missing where it does not answer. With --watch, a line each `stats_poll_interval`.",
  args: [
    { name: "VM", help: "name, id, or the beginning of one; default: every VM that runs", optional: true, many: true },
  ],
  argv: "none",
  flags: { watch: watchFlag },
  examples: [
    ["banger vm stats", "every VM that runs"],
    ["banger vm stats --watch box", "again and again"],
    ["banger vm stats --watch --json", "a JSON value a line"],
  ],
  run: async ({ args, values, json }) => {
    using client = openClient();
    using interrupt = interruptible();
    // Resolved here too: a name that fits none is an error before anything is shown.
    const known = args.length > 0 ? await client.call("vmList", {}, {}) : [];
    const vms = [...new Set(args.map((name) => resolveVm(name, known).id))];
    const stream = await client.stream("vmStats", {}, { vms, follow: values.watch }, { signal: interrupt.signal });
    stream.stdin.end();
    stream.stderr.resume();
    let last: StatsLine | undefined;
    for await (const line of jsonLines<StatsLine>(stream.stdout)) {
      last = line;
      if (values.watch) await (json ? printJsonLine(line) : redraw(listing(line.vms)));
    }
    if (interrupt.signal.aborted) return { exit: 130 };
    await stream.closed;
    return values.watch ? {} : { data: last?.vms ?? [], text: listing(last?.vms ?? []) };
  },
});
