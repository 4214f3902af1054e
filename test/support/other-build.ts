/** The same program as another build: what an upgrade puts in its place. */
import { cp, mkdtemp, readdir, readFile, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bangerBinary, type Environment, bangerIn } from "./host.ts";

const build = join(bangerBinary, "..", "..");

export type OtherBuild = AsyncDisposable & { binary: string; id: string };

/** @param env of a host whose daemon tells the present build's id */
export const otherBuild = async (env: Environment): Promise<OtherBuild> => {
  const status = await bangerIn(env, ["daemon", "status", "--json"]);
  const { build: id } = JSON.parse(status.stdout) as { build: string };
  const other = [...id].reverse().join("");
  const folder = await mkdtemp(join(tmpdir(), "banger-build-"));
  await cp(join(build, "bin"), join(folder, "bin"), { recursive: true });
  await cp(join(build, "lib"), join(folder, "lib"), {
    recursive: true,
    filter: (path) => !path.endsWith("/node") && !path.includes("/lib/cache"),
  });
  await symlink(await realpath(join(build, "lib", "node")), join(folder, "lib", "node"));
  for (const name of await readdir(join(folder, "lib"))) {
    if (!name.endsWith(".cjs")) continue;
    const path = join(folder, "lib", name);
    await writeFile(path, (await readFile(path, "utf8")).replaceAll(id, other));
  }
  return {
    binary: join(folder, "bin", "banger"),
    id: other,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true, maxRetries: 5 }),
  };
};
