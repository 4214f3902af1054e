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

/** Root's shells and commands begin in the repository that was brought in; others may not enter root's home. */
export const inWorkspace = (exec: Exec, workspace: Workspace | undefined): Exec =>
  workspace === undefined ||
  exec.cwd !== undefined ||
  (exec.user !== undefined && !/^(?:root|0)(?::|$)/.test(exec.user))
    ? exec
    : { ...exec, cwd: workspace.path };
