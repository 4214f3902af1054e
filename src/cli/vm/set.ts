import type { SetEffect, SetVm } from "../../contract/vms.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand, type Outcome } from "../command.ts";
import { autoStopFlag } from "../flags/auto-stop.ts";
import { diskSizeFlag } from "../flags/disk-size.ts";
import { checkLabelKey, labelFlag, labelsOf } from "../flags/label.ts";
import { memoryFlag } from "../flags/memory.ts";
import { netFlag } from "../flags/net.ts";
import { overcommitFlag } from "../flags/overcommit.ts";
import { vcpuFlag } from "../flags/vcpu.ts";
import { interruptible } from "../interrupt.ts";
import { usage } from "../parse.ts";
import { say } from "../render/output.ts";
import { progressDisplay } from "../render/progress.ts";
import { actOnEach } from "../several.ts";
import { sayNotes, vmArguments } from "./shared.ts";

const nameOf: Record<string, string> = {
  vcpu: "vcpu",
  memory: "memory",
  diskSize: "disk size",
  network: "network",
  autoStop: "auto-stop",
  labels: "labels",
};

const when: Record<SetEffect, (vm: string) => string> = {
  now: () => "now",
  restart: (vm) => `after \`banger vm restart ${vm}\``,
  start: () => "at the next start",
};

const flags = {
  vcpu: vcpuFlag,
  memory: memoryFlag,
  "disk-size": { ...diskSizeFlag, help: "size of its disk; grows at once, never shrinks" },
  net: netFlag,
  "auto-stop": autoStopFlag,
  label: labelFlag,
  force: overcommitFlag,
  unlabel: { kind: "list", placeholder: "KEY", help: "take a label away", parse: checkLabelKey },
} as const;

export const command = defineCommand({
  usage: ["[FLAGS] VM..."],
  description: "Says for each change whether it is there now or comes with a restart.",
  args: [vmArguments],
  argv: "none",
  flags,
  examples: [
    ["banger vm set --disk-size 20G box", "a larger disk, at once"],
    ["banger vm set --vcpu 4 --memory 8G box", "from its next start on"],
    ["banger vm set --auto-stop 2h --label team=web box fox", "several at once"],
  ],
  run: async ({ args, values }): Promise<Outcome> => {
    const { vcpu, memory, "disk-size": diskSize, net: network, "auto-stop": autoStop } = values;
    const removed = values.unlabel.map((key) => [key, null] as const);
    const labels = { ...Object.fromEntries(removed), ...labelsOf(values.label) };
    const given = { vcpu, memory, diskSize, network, autoStop, ...(Object.keys(labels).length > 0 ? { labels } : {}) };
    const request: SetVm = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
    if (values.force && Object.keys(request).length > 0) request.force = true;
    if (Object.keys(request).length === 0) throw usage("vm set", "nothing to set was given");
    using client = openClient();
    const vms = await client.call("vmList", {}, {});
    using interrupt = interruptible();
    using display = progressDisplay();
    return await actOnEach(args, vms, async ({ id, name }) => {
      const progress = { signal: interrupt.signal, report: display.report };
      const result = await client.operation("vmSet", { vm: id }, request, progress);
      const changes = Object.entries(result.effects).map(
        ([field, effect]) => `${nameOf[field] ?? field} ${when[effect](name)}`,
      );
      display.clear();
      await say(`${name}: ${changes.join(", ")}`);
      await sayNotes(result.notes, name);
      return result;
    });
  },
});
