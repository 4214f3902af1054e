/** A command of a VM as it runs there: what its caller leaves open is its workspace's, then its image's. */
import type { ImageBoot } from "../../contract/images.ts";
import type { Exec } from "../../contract/vms.ts";
import type { VmRow } from "../store/vms.ts";
import { inWorkspace, withImageDefaults } from "./image-defaults.ts";

/** @param main the VM's main command: without one of the caller's it is the image's */
export const execIn = (
  { workspace, env }: Pick<VmRow, "workspace" | "env">,
  image: ImageBoot | undefined,
  exec: Exec,
  main = false,
): Exec => withImageDefaults(inWorkspace(exec, workspace, { ...image?.env, ...env }), image, main);
