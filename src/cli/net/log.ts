import { createReadStream } from "node:fs";
import { errnoOf } from "../../contract/errors.ts";
import { vmFiles } from "../../host/paths.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { followFlag } from "../flags/follow.ts";
import { followFile, linesOf } from "../follow-file.ts";
import { interruptible } from "../interrupt.ts";
import { printLine } from "../render/output.ts";
import { printable } from "../render/table.ts";
import { vmArgument } from "../vm/shared.ts";
import { toldIn } from "./log-lines.ts";

/** How the filter begins such a line (agent/src/host/gate.rs). */
const REFUSED = "refused ";

export const command = defineCommand({
  usage: ["[-f] VM"],
  description:
    "What the VM was refused since its last start: each destination once, with the name that the guest asked for it by, the process that\nwanted it, where those are known, and the rule that did it; `private` and `never` are the rules of every VM. At most 10,000 lines a start.\nWith --json an object a line.",
  args: [vmArgument],
  argv: "none",
  flags: { follow: followFlag },
  examples: [
    ["banger vm net log box", "what was it refused?"],
    ["banger vm net log -f box", "and what comes, until Ctrl-C"],
    ["banger vm net log --json box | jq .rule", "for a program"],
  ],
  run: async ({ args: [vm = ""], values, json }) => {
    using client = openClient();
    const { id, name } = await client.call("vmShow", { vm }, {});
    const path = vmFiles(id).networkLog;
    using interrupt = interruptible();
    try {
      const bytes = values.follow ? followFile(path, interrupt.signal) : createReadStream(path);
      for await (const line of linesOf(bytes as AsyncIterable<Buffer>)) {
        const told = line.startsWith(REFUSED) ? toldIn(line) : undefined;
        if (!told) continue;
        const { verdict, ...refused } = told;
        await printLine(json ? JSON.stringify({ vm: name, ...refused }) : printable(line.slice(REFUSED.length)));
      }
    } catch (error) {
      // It has never run, or has no network card.
      if (errnoOf(error) !== "ENOENT") throw error;
    }
    return interrupt.signal.aborted ? { exit: 130 } : {};
  },
});
