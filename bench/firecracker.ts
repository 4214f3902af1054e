/** What the Firecracker driver adds to a start: its own time around a stand-in, and how often it asks. Real boots need KVM. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { silentProgress } from "../src/contract/progress.ts";
import { firecrackerDriver } from "../src/vmm/firecracker/driver.ts";
import { installFake } from "../test/fake-firecracker/install.ts";
import { type Figure, median, round, spreadOf } from "./measure.ts";

const ROUNDS = 20;
/** Most that the driver may add, in ms. */
const LIMIT = 15;

export const firecrackerOverhead = async (): Promise<Figure[]> => {
  const root = await mkdtemp(join(tmpdir(), "fire-"));
  try {
    const fake = await installFake(root, { silentGuest: true });
    const path = (name: string) => join(root, name);
    for (const name of ["kernel", "initramfs", "disk"]) await writeFile(path(name), name);
    const driver = firecrackerDriver({ firecracker: fake.path, qemu: "qemu", kvm: async () => undefined });
    await driver.host();
    const folder = path("run");
    const own: number[] = [];
    let calls = 0;
    for (let count = 0; count < ROUNDS; count++) {
      const before = (await fake.requests()).length;
      const asked = performance.timeOrigin + performance.now();
      const machine = await driver.start(
        {
          name: "bench",
          vcpu: 1,
          memory: 2 ** 28,
          nested: false,
          kernel: path("kernel"),
          initramfs: path("initramfs"),
          kernelArguments: [],
          disks: [true, false, true].map((readonly) => ({ path: path("disk"), readonly })),
          nic: undefined,
          sockets: { folder, agent: join(folder, "a"), control: join(folder, "c"), console: join(folder, "s") },
          log: path("log"),
          networkLog: path("network.log"),
          saving: path("saving"),
        },
        async () => undefined,
        silentProgress(),
      );
      const requests = (await fake.requests()).slice(before);
      await machine.kill();
      const [first, start] = [requests[0], requests.at(-1)];
      if (!first || start?.path !== "/actions") throw new Error("the stand-in was not started");
      // From being asked to the process, and whenever the stand-in stood idle until the start.
      own.push(first.began - asked + requests.reduce((sum, { waited }) => sum + waited, 0));
      calls = requests.length;
    }
    return [
      {
        what: `Firecracker driver, asked to \`InstanceStart\` sent, without the stand-in's own time (${calls} round trips; a restore has 3)`,
        value: round(median(own)),
        unit: "ms",
        n: own.length,
        spread: spreadOf(own),
        limit: `at most ${LIMIT} ms`,
        holds: median(own) <= LIMIT,
      },
    ];
  } finally {
    await rm(root, { recursive: true });
  }
};
