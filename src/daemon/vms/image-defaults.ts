/** How a command runs where its caller says nothing: as the image says, the way `docker run` and `docker exec` take it. */
import type { ImageBoot } from "../../contract/images.ts";
import type { Exec, Workspace } from "../../contract/vms.ts";

/** An image of a whole system starts its shells at home, like a login does; that is another place for each user. */
const HOME = "/root";

/**
 * @param boot undefined when the image is gone or damaged: then the guest's own defaults hold
 * @param main the VM's main command: without one of the caller's it is the image's
 */
export const withImageDefaults = (exec: Exec, boot: ImageBoot | undefined, main = false): Exec => {
  if (!boot) return exec;
  const { entrypoint, command, user, workdir } = boot;
  const argv = exec.argv.length === 0 && main ? [...entrypoint, ...command] : exec.argv;
  const cwd = exec.cwd ?? (workdir === HOME && exec.user !== undefined ? undefined : workdir);
  return {
    ...exec,
    argv,
    ...(cwd === undefined ? {} : { cwd }),
    ...(exec.user === undefined && user !== "root" ? { user } : {}),
  };
};

/** What mise has installed for root: a folder of links, so that no shell need be set up for it. */
const TOOLS = "/root/.local/share/mise/shims";
/** The agent's own, where neither image nor VM say another. */
const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * Root's shells and commands begin in the repository that was brought in, with the tools on PATH that it asks for; others may not enter root's home.
 * @param env of the image and the VM
 */
export const inWorkspace = (
  exec: Exec,
  workspace: Workspace | undefined,
  env: Readonly<Record<string, string>>,
): Exec => {
  if (workspace === undefined || (exec.user !== undefined && !/^(?:root|0)(?::|$)/.test(exec.user))) return exec;
  const path = exec.env?.PATH ?? env.PATH ?? DEFAULT_PATH;
  const known = exec.env?.PATH !== undefined || path.split(":").includes(TOOLS);
  return {
    ...exec,
    cwd: exec.cwd ?? workspace.path,
    ...(known ? {} : { env: { ...exec.env, PATH: `${TOOLS}:${path}` } }),
  };
};
