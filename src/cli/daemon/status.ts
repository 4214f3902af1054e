import type { DaemonStatus } from "../../contract/api.ts";
import { errorTable, toBangerError } from "../../contract/errors.ts";
import { formatSize } from "../../contract/names.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { age, record } from "../render/table.ts";

const offered = (service: DaemonStatus["dns"]): string | undefined =>
  service && (service.problem === undefined ? service.address : `not at ${service.address}: ${service.problem}`);

export const command = defineCommand({
  usage: [""],
  description: "Does not start it. Exits with 1 when it does not run.",
  args: [],
  argv: "none",
  flags: {},
  examples: [["banger daemon status", "is it running?"]],
  run: async () => {
    using client = openClient({ autostart: false });
    try {
      const status = await client.call("status", {}, {});
      const operations = await client.call("operations", {}, {});
      const text = record([
        ["state", `running for ${age(status.startedAt)}`],
        ["pid", String(status.pid)],
        ["version", `${status.version} (build ${status.build})`],
        ["socket", status.socket],
        ["memory", formatSize(status.memory)],
        ["names", offered(status.dns)],
        ["web", offered(status.web)],
        ["vms", `${status.vms}, ${status.running} running`],
        ...operations.map(({ id, what, startedAt }) => ["operation", `${id}: ${what}, for ${age(startedAt)}`] as const),
      ]);
      return { data: { state: "running", ...status, operations }, text };
    } catch (error) {
      const { code } = toBangerError(error);
      if (code !== "DAEMON_UNREACHABLE") throw error;
      return {
        exit: errorTable[code].exit,
        data: { state: "stopped" },
        text: "not running (any command that needs it starts it)",
      };
    }
  },
});
