import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { guestFiles } from "../copy/guest-files.ts";
import { planCopy } from "../copy/places.ts";
import { copyIn } from "../copy/to-guest.ts";
import { copyOut } from "../copy/to-host.ts";
import { interruptible } from "../interrupt.ts";
import { carry } from "../render/output.ts";
import { progressDisplay } from "../render/progress.ts";

export const command = defineCommand({
  usage: ["SOURCE... TARGET"],
  description:
    "One side is in a VM, written VM:/path. Folders are copied with all they hold, into a folder that is there or as a new\nname. Modes, links and holes are kept. `-` is stdin or stdout. A copy that is cut off leaves the old file or nothing.",
  args: [{ name: "PATHS", help: "host paths, and VM:/path; `-` for stdin or stdout", many: true }],
  argv: "none",
  flags: {
    recursive: { kind: "switch", short: "r", help: "accepted for those used to it: folders are always copied whole" },
  },
  examples: [
    ["banger vm cp ./app box:/srv", "a folder into the VM: /srv/app"],
    ["banger vm cp box:/var/log/syslog .", "a file out of it"],
    ["banger vm cp box:/srv/app ./copy", "a folder under a new name"],
    ["tar -c . | banger vm cp - box:/tmp/all.tar", "from a pipe"],
  ],
  run: async ({ args }) => {
    const plan = planCopy(args);
    using interrupt = interruptible();
    using display = progressDisplay();
    using client = openClient();
    const vm = plan.direction === "in" ? plan.target.vm : (plan.sources[0]?.vm ?? "");
    const guest = guestFiles(client, vm, interrupt.signal);
    if (plan.direction === "in") await copyIn(guest, plan.sources, plan.target, process.stdin, display.report);
    else await copyOut(guest, plan.sources, plan.target, (data) => carry(data, 1), display.report);
    return {};
  },
});
