import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { interruptible } from "../interrupt.ts";
import { actOnEach } from "../several.ts";
import { imageArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["IMAGE..."],
  description: "Refused while a VM uses it.",
  args: [{ ...imageArgument, many: true }],
  argv: "none",
  flags: {},
  examples: [["banger image delete debian-bookworm", "give its disk space back"]],
  run: async ({ args }) => {
    using client = openClient();
    using interrupt = interruptible();
    const progress = { signal: interrupt.signal, report: () => undefined };
    // The daemon knows what else an image may be called.
    const things = [...new Set(args)].map((name) => ({ name }));
    return await actOnEach(args, things, ({ name }) => client.operation("imageDelete", { name }, {}, progress));
  },
});
