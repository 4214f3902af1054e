/** What `vm net allow` and `vm net deny` have in common. */
import { parseNetRule } from "../../contract/net-rules.ts";
import type { NetRule } from "../../contract/network.ts";
import { openClient } from "../../client/client.ts";
import { type Argument, defineCommand } from "../command.ts";
import { vmArgument } from "../vm/shared.ts";

const ruleArgument: Argument = {
  name: "RULE",
  help: "any, example.org, *.example.org, 192.168.1.5, 192.168.1.0/24; with ports :22, :8000-8080; with a protocol /tcp, /udp",
  many: true,
};

/** The command that puts such rules before a VM's others, or takes them away. */
export const changeCommand = (action: NetRule["action"], examples: readonly (readonly [string, string])[]) =>
  defineCommand({
    usage: ["VM RULE...", "--remove VM RULE..."],
    description:
      "The first rule that fits decides; new ones come before those that are there. At once on a running VM: what is refused from\nnow on is reset, open connections too. No rule leads to this machine's loopback or to link-local addresses.\nA name counts for the addresses that this machine's resolver answers with, and never for what is near: allow that by its address.",
    args: [vmArgument, ruleArgument],
    argv: "none",
    flags: { remove: { kind: "switch", help: "take these rules away" } },
    examples,
    run: async ({ args: [vm = "", ...rules], values }) => {
      const wanted = rules.map((rule) => parseNetRule(action, rule));
      using client = openClient();
      const changed = await client.call("vmNet", { vm }, values.remove ? { remove: wanted } : { add: wanted });
      return { data: changed.rules };
    },
  });
