import { formatNetRule } from "../../contract/net-rules.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { vmArgument } from "../vm/shared.ts";

/** What counts where no rule fits. */
const rest = {
  user: "then: this machine's networks and private addresses are refused, all else is allowed",
  policy: "then: all is refused",
  learn: "then: this machine's networks and private addresses are refused, all else is allowed and written down",
  none: "it has no network card",
} as const;

export const command = defineCommand({
  usage: ["VM"],
  description: "In the order in which they are looked at, and what counts where none of them fits.",
  args: [vmArgument],
  argv: "none",
  flags: {},
  examples: [["banger vm net rules box", "what may it reach?"]],
  run: async ({ args: [vm = ""] }) => {
    using client = openClient();
    const { network, rules } = await client.call("vmShow", { vm }, {});
    const lines = rules.map((rule) => `${rule.action.padEnd(5)}  ${formatNetRule(rule)}`);
    return { data: { network, rules }, text: [...lines, rest[network]].join("\n") };
  },
});
