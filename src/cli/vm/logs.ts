import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { followFlag } from "../flags/follow.ts";
import { sinceFlag } from "../flags/since.ts";
import { interruptible } from "../interrupt.ts";
import { carry, isTerminal } from "../render/output.ts";
import { consoleFilter } from "../render/console.ts";
import { vmArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["[-f] [--since TIME] VM"],
  description:
    "What the guest's kernel and init wrote to its console. On a terminal only text and colours of it are shown.",
  args: [vmArgument],
  argv: "none",
  flags: { follow: followFlag, since: sinceFlag },
  examples: [
    ["banger vm logs box", "the console so far"],
    ["banger vm logs -f box", "and what comes, until Ctrl-C"],
    ["banger vm logs --since 10m box", "of the last ten minutes"],
  ],
  run: async ({ args: [vm = ""], values }) => {
    using interrupt = interruptible();
    using client = openClient();
    const request = { follow: values.follow, ...(values.since === undefined ? {} : { since: values.since }) };
    const stream = await client.stream("vmLogs", { vm }, request, { signal: interrupt.signal });
    stream.stdin.end();
    stream.stderr.resume();
    // A pipe gets the bytes as they are; a terminal must not obey what a guest wrote.
    await carry(isTerminal(1) ? stream.stdout.pipe(consoleFilter()) : stream.stdout, 1);
    // Ctrl-C is the way to end it, and no failure.
    if (!interrupt.signal.aborted) await stream.closed;
    return { exit: interrupt.signal.aborted ? 130 : 0 };
  },
});
