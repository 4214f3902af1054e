import { pipeline } from "node:stream/promises";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { positiveInteger } from "../flags/values.ts";
import { carry } from "../render/output.ts";

export const command = defineCommand({
  usage: ["HOST PORT"],
  description: "The ProxyCommand of banger's ssh_config: joins stdin and stdout to a TCP port in the guest.",
  args: [
    { name: "HOST", help: "NAME.vm" },
    { name: "PORT", help: "TCP port in the guest" },
  ],
  argv: "none",
  flags: {},
  examples: [["banger vm proxy box.vm 22", "what ssh runs"]],
  run: async ({ args: [host = "", port = ""] }) => {
    using client = openClient();
    const vm = host.replace(/\.vm$/, "");
    const stream = await client.stream("vmDial", { vm }, { port: positiveInteger("port")(port) });
    stream.stderr.resume();
    await stream.opened;
    // A half-close goes through: the guest may still answer after stdin has ended.
    pipeline(process.stdin, stream.stdin).catch(() => undefined);
    await carry(stream.stdout, 1);
    await stream.closed;
    return {};
  },
});
