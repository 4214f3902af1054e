/** VMs that a daemon finds in its database at its start, without an image or a boot. */
import { join } from "node:path";
import { openDatabase } from "../../src/daemon/store/database.ts";
import { vmStore } from "../../src/daemon/store/vms.ts";
import type { Host } from "./host.ts";
import { vmRow } from "./vm-row.ts";

/** Records stopped VMs of these names; no daemon may run meanwhile. */
export const recordVms = async (host: Host, names: readonly string[]): Promise<void> => {
  const database = await openDatabase(join(host.env.XDG_STATE_HOME, "banger", "banger.db"));
  const store = vmStore(database);
  for (const [index, name] of names.entries()) {
    const number = index.toString(16).padStart(8, "0");
    store.insert(
      vmRow({
        id: number.padStart(32, "a"),
        name,
        mac: `02:00:${number.match(/../g)?.join(":")}`,
        state: "stopped",
        // In this order, which the daemon lists them in.
        createdAt: index + 1,
        startedAt: undefined,
        pid: undefined,
        pidStart: undefined,
      }),
    );
  }
  database.close();
};
