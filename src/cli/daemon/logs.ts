import { open } from "node:fs/promises";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { daemonLogFile } from "../../host/paths.ts";
import { defineCommand } from "../command.ts";
import { carry } from "../render/output.ts";

export const command = defineCommand({
  usage: [""],
  description: "One JSON object a line.",
  args: [],
  argv: "none",
  flags: {},
  examples: [
    ["banger daemon logs | tail -n 20", "the latest"],
    ["banger daemon logs | jq 'select(.level == \"error\")'", "what went wrong"],
  ],
  run: async () => {
    const path = daemonLogFile();
    try {
      await using file = await open(path, "r");
      await carry(file.createReadStream({ autoClose: false }), 1);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      throw new BangerError("FILE_NOT_FOUND", "there is no log yet: the daemon has never run", {
        hint: "start it: banger daemon start",
        details: { path },
      });
    }
    return {};
  },
});
