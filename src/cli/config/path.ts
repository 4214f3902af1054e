import { configFile } from "../../host/paths.ts";
import { defineCommand } from "../command.ts";

export const command = defineCommand({
  usage: [""],
  description: "The file need not exist: every setting has a default.",
  args: [],
  argv: "none",
  flags: {},
  examples: [["nano $(banger config path)", "edit it"]],
  run: async () => ({ text: configFile(), data: { path: configFile() } }),
});
