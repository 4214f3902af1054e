/** The daemon, for the public TypeScript API. Any other call starts it where it does not run. */
import { openClient } from "../client/client.ts";
import type { DaemonStatus, OperationInfo } from "../contract/api.ts";
import { withClient } from "./client.ts";

export const daemon = {
  /** @throws DAEMON_UNREACHABLE when it does not run */
  status: async (): Promise<DaemonStatus> => {
    using client = openClient({ autostart: false });
    return await client.call("status", {}, {});
  },
  /** Ends it; VMs go on. @throws DAEMON_UNREACHABLE when it does not run */
  stop: async (): Promise<void> => {
    const { stopDaemon } = await import("../client/daemon-stop.ts");
    await stopDaemon();
  },
  /** Long work that is under way. */
  operations: (): Promise<OperationInfo[]> => withClient((client) => client.call("operations", {}, {})),
  /** Cancels one; it undoes what it has made. @param id as `operations` and errors (`details.operation`) tell it. @throws OPERATION_NOT_FOUND */
  cancel: async (id: string): Promise<void> => void (await withClient((client) => client.call("cancel", { id }, {}))),
} as const;
