import { buildId, version } from "../contract/version.ts";
import { defineCommand } from "./command.ts";

export const command = defineCommand({
  usage: [""],
  args: [],
  argv: "none",
  flags: {},
  examples: [["banger version", "version and build"]],
  run: async () => ({
    text: `banger ${version()} (build ${buildId()})`,
    data: { version: version(), build: buildId(), node: process.version },
  }),
});
