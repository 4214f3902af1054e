import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { vmArgument } from "../vm/shared.ts";
import { secretTable } from "./list.ts";

export const command = defineCommand({
  usage: ["VM NAME..."],
  description:
    "The value is gone from this machine, and the placeholder is worth nothing any more, for programs that still hold it too.",
  args: [vmArgument, { name: "NAME", help: "GITHUB_TOKEN", many: true }],
  argv: "none",
  flags: {},
  examples: [["banger vm secret delete box GITHUB_TOKEN", "no more"]],
  run: async ({ args: [vm = "", ...remove] }) => {
    using client = openClient();
    const secrets = await client.call("vmSecretsChange", { vm }, { remove });
    return { data: secrets, text: secrets.length > 0 ? secretTable(secrets) : "" };
  },
});
