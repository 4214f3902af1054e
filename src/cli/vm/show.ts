import { formatSize } from "../../contract/names.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { record, timestamp } from "../render/table.ts";
import { vmArgument } from "./shared.ts";

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
      ["vcpu", String(found.vcpu)],
      ["memory", formatSize(found.memory)],
      [
        "disk",
        `${formatSize(found.diskSize)}${found.diskUsed === undefined ? "" : `, ${formatSize(found.diskUsed)} used`}`,
      ],
      ["network", found.network],
      ["vmm", `${found.vmm}/${found.accel}`],
      ["pid", optional(found.pid, String)],
      ["created", timestamp(found.createdAt)],
      ["started", optional(found.startedAt, timestamp)],
      ["stopped", optional(found.stoppedAt, timestamp)],
      ...found.notes.map((note) => ["note", note] as const),
    ]);
    return { data: found, text };
  },
});
