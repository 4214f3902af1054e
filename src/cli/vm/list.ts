import { formatSize } from "../../contract/names.ts";
import type { Vm } from "../../contract/vms.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { quietFlag } from "../flags/quiet.ts";
import { age, table } from "../render/table.ts";

const stateOf = (vm: Vm): string => {
  const since =
    vm.state === "running" ? vm.startedAt : vm.state === "stopped" ? (vm.stoppedAt ?? vm.createdAt) : undefined;
  return `${vm.state}${since === undefined ? "" : ` ${age(since)}`}${vm.reason ? ` (${vm.reason})` : ""}`;
};

const listing = (vms: readonly Vm[]): string =>
  table(
    ["NAME", "STATE", "IMAGE", "VCPU", "MEMORY", "DISK", "NET", "VMM", "AGE"],
    vms.map((vm) => [
      vm.name,
      stateOf(vm),
      vm.image,
      String(vm.vcpu),
      formatSize(vm.memory),
      formatSize(vm.diskSize),
      vm.network,
      `${vm.vmm}/${vm.accel}`,
      age(vm.createdAt),
    ]),
  );

export const command = defineCommand({
  usage: ["[-q]"],
  args: [],
  argv: "none",
  flags: {
    quiet: quietFlag,
    all: { kind: "switch", short: "a", help: "accepted for those used to it: all VMs are always listed" },
  },
  examples: [
    ["banger vm list", "all VMs, running or not"],
    ["banger vm stop $(banger vm list -q)", "names for another command"],
    ["banger vm list --json", "every detail"],
  ],
  run: async ({ values }) => {
    using client = openClient();
    const vms = await client.call("vmList", {}, {});
    if (values.quiet) return { data: vms, ...(vms.length > 0 ? { text: vms.map(({ name }) => name).join("\n") } : {}) };
    return { data: vms, text: listing(vms) };
  },
});
