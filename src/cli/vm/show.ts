import { formatSize } from "../../contract/names.ts";
import { formatHostPort } from "../../contract/ports.ts";
import type { Published } from "../../contract/published.ts";
import type { Vm } from "../../contract/vms.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { duration, record, timestamp, until } from "../render/table.ts";
import { vmArgument } from "./shared.ts";

/** `2`, or `2 (4 after a restart)`. */
const withNext = <T>(value: T, next: T | undefined, format: (value: T) => string): string =>
  next === undefined ? format(value) : `${format(value)} (${format(next)} after a restart)`;

const autoStop = ({ autoStop, autoStopAt }: Vm): string | undefined => {
  const set = autoStop === undefined ? undefined : autoStop === 0 ? "never" : `after ${duration(autoStop)} without use`;
  if (autoStopAt === undefined) return set;
  return `${set ?? "as the config says"}, in ${until(autoStopAt)} from now`;
};

const published = ({ address, host, guest, proto, auto, problem }: Published): string =>
  `${formatHostPort(address, host)} -> ${guest}${proto === "udp" ? "/udp" : ""}${auto ? " (auto)" : ""}${problem === undefined ? "" : `, not open: ${problem}`}`;

const optional = <T>(value: T | undefined, format: (value: T) => string): string | undefined =>
  value === undefined ? undefined : format(value);

export const command = defineCommand({
  usage: ["VM"],
  args: [vmArgument],
  argv: "none",
  flags: {},
  examples: [
    ["banger vm show box", "what it is made of and how it is"],
    ["banger vm show box --json", "the same for a program"],
  ],
  run: async ({ args: [vm = ""] }) => {
    using client = openClient();
    const found = await client.call("vmShow", { vm }, {});
    const text = record([
      ["name", found.name],
      ["id", found.id],
      ["state", found.state],
      ["reason", found.reason],
      ["image", found.image],
      ["kernel", found.kernel],
      ["vcpu", withNext(found.vcpu, found.next?.vcpu, String)],
      ["memory", withNext(found.memory, found.next?.memory, formatSize)],
      [
        "disk",
        `${formatSize(found.diskSize)}${found.diskUsed === undefined ? "" : `, ${formatSize(found.diskUsed)} used`}`,
      ],
      ["network", withNext(found.network, found.next?.network, String)],
      ["team", found.team && `${found.team.name}, ${found.team.address}`],
      ...found.secrets.map(({ name, hosts }) => ["secret", `${name}, for ${hosts.join(", ")}`] as const),
      ["address", found.address],
      ...found.published.map((port) => ["published", published(port)] as const),
      ["nested", found.nested ? "its guest can run VMs with KVM" : undefined],
      ["auto-stop", autoStop(found)],
      ["vmm", `${found.vmm}/${found.accel}`],
      ["pid", optional(found.pid, String)],
      ...Object.entries(found.labels).map(([key, value]) => ["label", `${key}=${value}`] as const),
      ["created", timestamp(found.createdAt)],
      ["started", optional(found.startedAt, timestamp)],
      ["used", optional(found.lastUsedAt, timestamp)],
      ["stopped", optional(found.stoppedAt, timestamp)],
      ...found.notes.map((note) => ["note", note] as const),
    ]);
    return { data: found, text };
  },
});
