import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { interruptible } from "../interrupt.ts";
import { actOnEach, resolveName } from "../several.ts";
import { kernelArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["KERNEL..."],
  description: "Refused while a VM uses it.",
  args: [{ ...kernelArgument, many: true }],
  argv: "none",
  flags: {},
  examples: [["banger kernel delete debian-bookworm-cloud", "give its disk space back"]],
  run: async ({ args }) => {
    using client = openClient();
    using interrupt = interruptible();
    const progress = { signal: interrupt.signal, report: () => undefined };
    return await actOnEach(
      args,
      await client.call("kernelList", {}, {}),
      ({ name }) => client.operation("kernelDelete", { name }, {}, progress),
      resolveName("KERNEL_NOT_FOUND", "kernel", "banger kernel list"),
    );
  },
});
