import { toBangerError } from "../../contract/errors.ts";
import { openClient } from "../../client/client.ts";
import { stopDaemon } from "../../client/daemon-stop.ts";
import { exists, writeFileAtomic } from "../../host/files.ts";
import { lingerFile, serviceUnitFile } from "../../host/paths.ts";
import {
  installedUnit,
  refuseForeignUnit,
  requireUserSystemd,
  serviceName,
  systemctl,
  unitText,
} from "../../host/service-unit.ts";
import { defineCommand } from "../command.ts";
import { say } from "../render/output.ts";

const stopIfRunning = async (): Promise<void> => {
  try {
    await stopDaemon();
  } catch (error) {
    if (toBangerError(error).code !== "DAEMON_UNREACHABLE") throw error;
  }
};

export const command = defineCommand({
  usage: [""],
  description:
    "Writes a unit of the systemd user service `bangerd`, and starts it: the daemon is then there from your login on, and again after a\ncrash. VMs go on running through `systemctl --user restart bangerd`. Needed by nothing: without it the first command starts the daemon.",
  args: [],
  argv: "none",
  flags: {},
  examples: [
    ["banger daemon install", "the daemon as a service of your own systemd"],
    ["banger daemon install && systemctl --user status bangerd", "and what systemd says of it"],
  ],
  run: async () => {
    await requireUserSystemd();
    await refuseForeignUnit();
    const path = serviceUnitFile();
    if ((await installedUnit()) !== unitText()) await writeFileAtomic(path, unitText(), 0o644);
    await systemctl("daemon-reload");
    // One that a command has started holds the lock; its VMs go on.
    if ((await systemctl("show", "--property=ActiveState", "--value", serviceName)) !== "active") await stopIfRunning();
    await systemctl("enable", serviceName);
    await systemctl("restart", serviceName);
    using client = openClient({ autostart: false });
    const { pid } = await client.call("status", {}, {});
    if (!(await exists(lingerFile())))
      await say("it ends with your last session, and VMs with it; to keep them: loginctl enable-linger");
    return { data: { unit: path, pid }, text: `${path}: installed and running, pid ${pid}` };
  },
});
