import { createReadStream } from "node:fs";
import { formatNetRule } from "../../contract/net-rules.ts";
import { errnoOf } from "../../contract/errors.ts";
import { vmFiles } from "../../host/paths.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { usage } from "../parse.ts";
import { linesOf } from "../follow-file.ts";
import { vmArgument } from "../vm/shared.ts";
import { learnedFrom } from "./log-lines.ts";

async function* linesAt(path: string): AsyncGenerator<string> {
  try {
    yield* linesOf(createReadStream(path) as AsyncIterable<Buffer>);
  } catch (error) {
    // It has never run.
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}

export const command = defineCommand({
  usage: ["VM"],
  description:
    "The smallest policy that allows what a VM with --net learn has reached since its last start: by name where the guest asked for one.\nAs flags for vm run and vm create. Pings are not among it; DNS needs no rule.",
  args: [vmArgument],
  argv: "none",
  flags: {},
  examples: [
    ["banger vm run --name box --net learn ./repo -- make test", "what does it need?"],
    ["banger vm run --rm --net policy $(banger vm net learned box) ./repo -- make test", "that, and no more"],
    ["banger vm run --rm --net-learn test.policy ./repo -- make test", "the same into a file, for --net-policy"],
  ],
  run: async ({ args: [vm = ""] }) => {
    using client = openClient();
    const { id, name, network } = await client.call("vmShow", { vm }, {});
    if (network !== "learn")
      throw usage(
        "vm net learned",
        `VM ${name} does not write down what it reaches`,
        "make one that does: banger vm run --net learn",
      );
    const { rules } = await learnedFrom(linesAt(vmFiles(id).networkLog));
    return { data: rules, text: rules.map((rule) => `--allow=${formatNetRule(rule)}`).join("\n") };
  },
});
