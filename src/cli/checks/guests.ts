/** VMs that run, as their guests tell of themselves through the daemon. */
import { openClient } from "../../client/client.ts";
import { toBangerError } from "../../contract/errors.ts";
import type { StatsLine, VmStats } from "../../contract/vms.ts";
import { daemonSocket } from "../../host/paths.ts";
import { jsonLines } from "../render/lines.ts";
import { duration } from "../render/table.ts";
import { advise, type Check, pass, warn } from "./check.ts";

/** A guest's clock may be off by so much, in ms: the answer of a busy one takes its time. */
const CLOCK_TOLERANCE = 2000;

/** @returns undefined when no daemon runs */
const running = async (): Promise<readonly VmStats[] | undefined> => {
  // Named, so that the client does not put the folder of sockets right before that is looked at.
  using client = openClient({ autostart: false, socketPath: daemonSocket() });
  try {
    const stream = await client.stream("vmStats", {}, { vms: [], follow: false });
    stream.stdin.end();
    stream.stderr.resume();
    for await (const { vms } of jsonLines<StatsLine>(stream.stdout)) return vms;
    await stream.closed;
    return [];
  } catch (error) {
    if (toBangerError(error).code !== "DAEMON_UNREACHABLE") throw error;
    return undefined;
  }
};

const clockCheck: Check = {
  name: "guest clocks",
  look: async () => {
    const vms = await running();
    if (!vms) return pass("told by the daemon, which does not run");
    const told = vms.flatMap(({ name, guest }) =>
      guest?.clockOffset === undefined ? [] : [{ name, offset: guest.clockOffset }],
    );
    const off = told.filter(({ offset }) => Math.abs(offset) > CLOCK_TOLERANCE);
    if (off.length === 0) return pass(told.length === 0 ? "no guest tells its time" : `right in ${told.length} VMs`);
    const words = off.map(
      ({ name, offset }) => `${name} is ${duration(Math.abs(offset))} ${offset < 0 ? "behind" : "ahead"}`,
    );
    const fixes = off.flatMap(({ name }) => [
      ["banger", "vm", "pause", name] as const,
      ["banger", "vm", "resume", name] as const,
    ]);
    return advise(
      warn(`off by more than ${CLOCK_TOLERANCE / 1000} s: ${words.join(", ")}`, ...fixes),
      "a VM that goes on after a pause gets the host's time; one that was set on purpose can stay as it is",
    );
  },
};

export const guestChecks: readonly Check[] = [clockCheck];
