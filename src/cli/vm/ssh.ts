import { constants } from "node:os";
import { openClient } from "../../client/client.ts";
import { sshConfigFile } from "../../host/paths.ts";
import { runInForeground } from "../../host/process.ts";
import { defineCommand } from "../command.ts";
import { userFlag } from "../flags/user.ts";
import { vmArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM", "VM -- COMMAND..."],
  description:
    "Runs your own ssh with banger's key and the VM's pinned host key. As with any ssh, the words of a command are joined\nand given to the guest's shell: `banger vm exec` passes them as they are.",
  args: [vmArgument],
  argv: "after",
  flags: { user: { ...userFlag, help: "user in the guest; default: root" } },
  examples: [
    ["banger vm ssh box", "log in"],
    ["banger vm ssh box -- uptime", "run a command"],
    ["banger vm ssh box -- -L 8080:localhost:80 -N", "any other option of ssh"],
  ],
  run: async ({ args: [given = ""], argv = [], values }) => {
    using client = openClient();
    // A prefix or an id becomes the name that the pinned host key is known by.
    const { name } = await client.call("vmShow", { vm: given }, {});
    client.close();
    const target = `${values.user ?? "root"}@${name}.vm`;
    // ssh itself takes options after the host, up to the first word of a command.
    const exit = await runInForeground(["ssh", "-F", sshConfigFile(), target, ...argv]);
    return { exit: exit.status ?? 128 + (exit.signal ? constants.signals[exit.signal] : 0) };
  },
});
