/** What `vm stop` takes of a guest with systemd, over the guest's own shutdown. */
import type { Vm } from "../src/contract/vms.ts";
import type { Host } from "../test/support/host.ts";
import { processEnds } from "../test/support/wait.ts";
import { type Figure, interleaved, median, round, spreadOf } from "./measure.ts";

const VM = "bench-stop";

export const stopTime = async (host: Host): Promise<Figure[]> => {
  const must = async (...args: string[]) => {
    const done = await host.banger(...args);
    if (done.status !== 0) throw new Error(done.stderr);
  };
  await must("vm", "create", "--name", VM, "--image", "debian-bookworm", "--vcpu", "2", "--memory", "1G");
  const ours: number[] = [];
  const own: number[] = [];
  const booted = async (): Promise<number> => {
    await must("vm", "start", VM);
    // What systemd still starts is not to be waited for by its shutdown.
    await host.banger("vm", "exec", VM, "--", "systemctl", "is-system-running", "--wait");
    return (await host.json<Vm>("vm", "show", VM)).pid ?? 0;
  };
  for (let round = 0; round < 4; round++) {
    await booted();
    const [stops = []] = await interleaved(1, [() => must("vm", "stop", VM)]);
    ours.push(...stops);
    const pid = await booted();
    const [shutdowns = []] = await interleaved(1, [
      async () => {
        // The session ends with the guest.
        await host.banger("vm", "exec", VM, "--", "systemctl", "reboot");
        await processEnds(pid, 120_000);
      },
    ]);
    own.push(...shutdowns);
  }
  await must("vm", "delete", VM);
  const ratio = median(ours) / median(own);
  return [
    {
      what: "`vm stop` of a guest with systemd",
      value: round(median(ours)),
      unit: "ms",
      n: ours.length,
      spread: spreadOf(ours),
      baseline: { what: "`systemctl reboot` in the guest, until its machine has ended", value: round(median(own)) },
      limit: `at most 1.3 times: ${ratio.toFixed(2)}`,
      holds: ratio <= 1.3,
    },
  ];
};
