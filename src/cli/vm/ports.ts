import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { table } from "../render/table.ts";
import { vmArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM"],
  description: "Sockets in the guest that wait for connections, and whose they are.",
  args: [vmArgument],
  argv: "none",
  flags: {},
  examples: [
    ["banger vm ports box", "what listens in it?"],
    ["banger vm ports box --json", "the same for a program"],
  ],
  run: async ({ args: [vm = ""] }) => {
    using client = openClient();
    const ports = await client.call("vmPorts", { vm }, {});
    const rows = ports.map(({ port, proto, address, process, pid }) => [
      String(port),
      proto,
      address,
      process ?? "",
      pid === undefined ? "" : String(pid),
    ]);
    return { data: ports, text: table(["PORT", "PROTO", "ADDRESS", "PROCESS", "PID"], rows) };
  },
});
