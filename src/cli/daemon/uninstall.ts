import { rm } from "node:fs/promises";
import { serviceUnitFile } from "../../host/paths.ts";
import {
  installedUnit,
  refuseForeignUnit,
  requireUserSystemd,
  serviceName,
  systemctl,
} from "../../host/service-unit.ts";
import { defineCommand } from "../command.ts";

export const command = defineCommand({
  usage: [""],
  description: "VMs go on running. The next command that needs the daemon starts it, as without a service.",
  args: [],
  argv: "none",
  flags: {},
  examples: [["banger daemon uninstall", "undo `banger daemon install`"]],
  run: async () => {
    const path = serviceUnitFile();
    await refuseForeignUnit();
    if ((await installedUnit()) === undefined)
      return { data: { unit: path, removed: false }, text: "it was not installed" };
    await requireUserSystemd();
    await systemctl("disable", "--now", serviceName);
    await rm(path, { force: true });
    await systemctl("daemon-reload");
    return { data: { unit: path, removed: true }, text: `${path}: stopped and taken away` };
  },
});
