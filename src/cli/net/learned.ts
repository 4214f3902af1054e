import { createReadStream } from "node:fs";
import type { NetRule } from "../../contract/network.ts";
import { formatNetRule, parseNetRule, targetOf } from "../../contract/net-rules.ts";
import { errnoOf } from "../../contract/errors.ts";
import { vmFiles } from "../../host/paths.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { usage } from "../parse.ts";
import { linesOf } from "../follow-file.ts";
import { vmArgument } from "../vm/shared.ts";

/** A line of the filter before the VM's network (agent/src/host/gate.rs), as a rule. A ping has none that would allow it alone. */
const ruleIn = (line: string): NetRule | undefined => {
  const [, protocol, address = "", port, name] = /^passed (tcp|udp) ([\d.]+):(\d+)(?: (\S+))?$/.exec(line) ?? [];
  const target = name !== undefined && targetOf(name) !== undefined ? name : address;
  return protocol === undefined ? undefined : parseNetRule("allow", `${target}:${port}/${protocol}`);
};

export const command = defineCommand({
  usage: ["VM"],
  description:
    "The smallest policy that allows what a VM with --net learn has reached since its last start: by name where the guest asked for one.\nAs flags for vm run and vm create. Pings are not among it; DNS needs no rule.",
  args: [vmArgument],
  argv: "none",
  flags: {},
  examples: [
    ["banger vm run --name box --net learn ./repo -- make test", "what does it need?"],
    ["banger vm run --rm --net policy $(banger vm net learned box) ./repo -- make test", "that, and no more"],
  ],
  run: async ({ args: [vm = ""] }) => {
    using client = openClient();
    const { id, name, network } = await client.call("vmShow", { vm }, {});
    if (network !== "learn")
      throw usage(
        "vm net learned",
        `VM ${name} does not write down what it reaches`,
        "make one that does: banger vm run --net learn",
      );
    const rules = new Map<string, NetRule>();
    try {
      for await (const line of linesOf(createReadStream(vmFiles(id).networkLog) as AsyncIterable<Buffer>)) {
        const rule = ruleIn(line);
        if (rule) rules.set(formatNetRule(rule), rule);
      }
    } catch (error) {
      // It has never run.
      if (errnoOf(error) !== "ENOENT") throw error;
    }
    const words = [...rules.keys()].sort();
    return { data: words.map((word) => rules.get(word)), text: words.map((word) => `--allow=${word}`).join("\n") };
  },
});
