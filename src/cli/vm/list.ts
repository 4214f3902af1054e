import { formatSize, vmStates } from "../../contract/names.ts";
import type { Vm, VmWatchLine } from "../../contract/vms.ts";
import { type Client, openClient } from "../../client/client.ts";
import { defineCommand, type Outcome } from "../command.ts";
import { checkLabelKey } from "../flags/label.ts";
import { quietFlag } from "../flags/quiet.ts";
import { oneOf, text } from "../flags/values.ts";
import { watchFlag } from "../flags/watch.ts";
import { interruptible } from "../interrupt.ts";
import { jsonLines, printJsonLine, redraw } from "../render/lines.ts";
import { isTerminal, printLine } from "../render/output.ts";
import { age, printable, table, until } from "../render/table.ts";

const stateOf = (vm: Vm): string => {
  const since =
    vm.state === "running" ? vm.startedAt : vm.state === "stopped" ? (vm.stoppedAt ?? vm.createdAt) : undefined;
  const more = [
    ...(vm.reason ? [vm.reason] : []),
    ...(vm.autoStopAt === undefined ? [] : [`stops in ${until(vm.autoStopAt)}`]),
  ];
  return `${vm.state}${since === undefined ? "" : ` ${age(since)}`}${more.length > 0 ? ` (${more.join("; ")})` : ""}`;
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

type LabelFilter = { key: string; value: string | undefined };

/** `KEY`, or `KEY=VALUE`. */
const parseFilter = (given: string): LabelFilter => {
  const at = given.indexOf("=");
  const key = checkLabelKey(at < 0 ? given : given.slice(0, at));
  return { key, value: at < 0 ? undefined : given.slice(at + 1) };
};

type Filters = { state: readonly string[]; image: readonly string[]; label: readonly LabelFilter[] };

/** One of the states and one of the images that were given, and all of the labels. */
const fits =
  ({ state, image, label }: Filters) =>
  (vm: Vm): boolean =>
    (state.length === 0 || state.includes(vm.state)) &&
    (image.length === 0 || image.includes(vm.image)) &&
    label.every(({ key, value }) => Object.hasOwn(vm.labels, key) && (value === undefined || vm.labels[key] === value));

const oneLine = (vm: Vm): string => printable(`${vm.name}  ${stateOf(vm)}`);

/** Where nobody looks at a screen, a line for each change; a VM that fits no more is told of once more. */
const watch = async (client: Client, filters: Filters, json: boolean): Promise<Outcome> => {
  using interrupt = interruptible();
  const stream = await client.stream("vmWatch", {}, {}, { signal: interrupt.signal });
  stream.stdin.end();
  stream.stderr.resume();
  const fitting = fits(filters);
  const shown = new Map<string, Vm>();
  const screen = isTerminal(1) && !json;
  for await (const line of jsonLines<VmWatchLine>(stream.stdout)) {
    const changed = line.vms ?? (line.vm ? [line.vm] : []);
    const told = changed.filter((vm) => fitting(vm) || shown.has(vm.id));
    for (const vm of told) {
      if (fitting(vm)) shown.set(vm.id, vm);
      else shown.delete(vm.id);
    }
    const known = line.gone === undefined || shown.delete(line.gone.id);
    if (screen) await redraw(listing([...shown.values()]));
    else if (json) {
      if (line.vms) await printJsonLine({ vms: told });
      else if (line.gone ? known : told.length > 0) await printJsonLine(line);
    } else {
      for (const vm of told) await printLine(oneLine(vm));
      if (line.gone && known) await printLine(`${line.gone.name}  deleted`);
    }
  }
  if (interrupt.signal.aborted) return { exit: 130 };
  await stream.closed;
  return {};
};

const flags = {
  quiet: quietFlag,
  state: {
    kind: "list",
    placeholder: "STATE",
    help: `only VMs in this state: ${vmStates.join(", ")}`,
    parse: oneOf("state", vmStates),
  },
  image: { kind: "list", placeholder: "IMAGE", help: "only VMs of this image", parse: text },
  label: { kind: "list", short: "l", placeholder: "KEY[=VALUE]", help: "only VMs with this label", parse: parseFilter },
  watch: watchFlag,
  all: { kind: "switch", short: "a", help: "accepted for those used to it: all VMs are always listed" },
} as const;

export const command = defineCommand({
  usage: ["[-q] [--state STATE] [--image IMAGE] [--label KEY[=VALUE]]", "--watch"],
  args: [],
  argv: "none",
  flags,
  examples: [
    ["banger vm list", "all VMs, running or not"],
    ["banger vm stop $(banger vm list -q --state running)", "names for another command"],
    ["banger vm list --label team=web --json", "every detail of some"],
    ["banger vm list --watch", "what changes, as it changes"],
  ],
  run: async ({ values, json }) => {
    using client = openClient();
    if (values.watch) return await watch(client, values, json);
    const vms = (await client.call("vmList", {}, {})).filter(fits(values));
    if (values.quiet) return { data: vms, ...(vms.length > 0 ? { text: vms.map(({ name }) => name).join("\n") } : {}) };
    return { data: vms, text: listing(vms) };
  },
});
