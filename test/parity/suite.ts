/** The list of behaviours as tests of one driver. */
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { bangerBinary, type Host } from "../support/host.ts";
import type { Nested } from "../support/nested.ts";
import { behaviours, type DriverName, type World } from "./behaviours.ts";

/** @param world is asked for once the tests run */
export const parityTests = (driver: DriverName, world: () => World): void => {
  for (const { name, run, not } of behaviours) test(name, { skip: not?.[driver] ?? false }, () => run(world()));
};

/** How long each part of a start took, for whoever reads the run. */
export const stageTimes = (world: () => World): void => {
  test("where the time of a start goes", async (context) => {
    await world().shell(`sed -i '/^serial_console/s/true/false/' "$(banger config path)"`);
    await world().banger(["image", "warm"]);
    for (const what of ["from a template", "cold"]) {
      const done = await world().banger(["vm", "run", "--rm", "--timings", "--", "true"]);
      assert.equal(done.status, 0, done.stderr);
      for (const line of [`${what}:`, ...done.stderr.trim().split("\n")]) context.diagnostic(line);
      await world().shell(`sed -i '/^templates.enabled/s/true/false/' "$(banger config path)"`);
    }
  });
};

/** Writes a config.toml for small VMs of this image. @param settings on top of it */
export const configure = async ({ env }: Host, image: string, settings: string): Promise<void> => {
  const folder = join(env.XDG_CONFIG_HOME, "banger");
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const defaults = `vcpu = 1\nmemory = "256M"\ndisk_size = "1G"\nnetwork = "none"\n`;
  await writeFile(
    join(folder, "config.toml"),
    `default_image_name = "${image}"\n${settings}\n[vm_defaults]\n${defaults}`,
  );
};

export const hostWorld = (host: Host, vmm: string): World => ({
  vmm,
  banger: (args, input) => host.run(args, input === undefined ? {} : { input }),
  shell: (script) =>
    host.run(["-ec", script], {
      binary: "bash",
      env: { PATH: `${join(bangerBinary, "..")}:${process.env.PATH ?? ""}` },
    }),
});

export const nestedWorld = (nested: Nested, vmm: string): World => ({ vmm, banger: nested.run, shell: nested.script });
