import { defineCommand } from "../command.ts";
import { deleteEach } from "../delete-each.ts";
import { resolveName } from "../several.ts";
import { kernelArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["KERNEL..."],
  description: "Refused while a VM uses it.",
  args: [{ ...kernelArgument, many: true }],
  argv: "none",
  flags: {},
  examples: [["banger kernel delete debian-bookworm-cloud", "give its disk space back"]],
  run: ({ args }) =>
    deleteEach(
      args,
      "kernelDelete",
      (client) => client.call("kernelList", {}, {}),
      resolveName("KERNEL_NOT_FOUND", "kernel", "banger kernel list"),
    ),
});
