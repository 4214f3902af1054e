import { formatHostPort } from "../../contract/ports.ts";
import type { Published } from "../../contract/published.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { table } from "../render/table.ts";
import { vmArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM"],
  description:
    "Sockets in the guest that wait for connections, whose they are, and the address of this machine that leads to each.",
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
    const reached = ({ address, host, problem }: Published) =>
      `${formatHostPort(address, host)}${problem === undefined ? "" : ` (not open: ${problem})`}`;
    const rows = ports.map(({ port, proto, address, process, pid, published }) => [
      String(port),
      proto,
      address ?? "",
      published.map(reached).join(", "),
      process ?? "",
      pid === undefined ? "" : String(pid),
    ]);
    return { data: ports, text: table(["PORT", "PROTO", "ADDRESS", "REACHED AT", "PROCESS", "PID"], rows) };
  },
});
