/** What an exec costs on the host's side, over the same fork and exec timed inside the guest. */
import { openClient } from "../src/client/client.ts";
import type { Host } from "../test/support/host.ts";
import { type Figure, interleaved, median, round, spreadOf } from "./measure.ts";

const VM = "bench-exec";
/** Runs of `true` timed together inside the guest: /proc/uptime counts in steps of 10 ms. */
const BATCH = 50;
const inGuest = `read a rest </proc/uptime; i=0; while [ $i -lt ${BATCH} ]; do /bin/true; i=$((i+1)); done; read b rest </proc/uptime; echo $a $b`;

export const execLatency = async (host: Host): Promise<Figure[]> => {
  const must = async (...args: string[]) => {
    const done = await host.banger(...args);
    if (done.status !== 0) throw new Error(done.stderr);
    return done.stdout;
  };
  await must("vm", "run", "-d", "--name", VM, "--image", "debian-bookworm-slim", "--vcpu", "1", "--memory", "512M");
  Object.assign(process.env, host.env);
  await using client = await openClient();
  const guestTimes: number[] = [];
  const timeInGuest = async () => {
    const [from = 0, to = 0] = (await must("vm", "exec", VM, "--", "sh", "-c", inGuest)).split(" ").map(Number);
    guestTimes.push(((to - from) * 1000) / BATCH);
  };
  const throughLibrary = async () => {
    const stream = await client.stream("vmExec", { vm: VM }, { argv: ["/bin/true"] });
    stream.stdin.end();
    stream.stdout.resume();
    stream.stderr.resume();
    await stream.closed;
  };
  await throughLibrary();
  const [cli = [], library = []] = await interleaved(40, [
    () => must("vm", "exec", VM, "--", "/bin/true"),
    throughLibrary,
  ]);
  for (let i = 0; i < 10; i++) await timeInGuest();
  await must("vm", "delete", VM);
  const guest = median(guestTimes);
  const baseline = {
    what: `fork and exec of \`true\` timed inside the guest (median of ${guestTimes.length} batches of ${BATCH})`,
    value: round(guest),
  };
  const figure = (what: string, times: readonly number[], limit: number): Figure => {
    const over = median(times) - guest;
    return {
      what,
      value: round(median(times)),
      unit: "ms",
      n: times.length,
      spread: spreadOf(times),
      baseline,
      limit: `at most ${limit} ms above: ${round(over)}`,
      holds: over <= limit,
    };
  };
  return [
    figure("`vm exec -- true`, CLI start included", cli, 60),
    figure("exec of `true` through the client library", library, 10),
  ];
};
