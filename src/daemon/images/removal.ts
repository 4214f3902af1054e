/** Installed images on their way out: deleted, or replaced because their tag has moved. Not while a VM uses them. */
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import type { ImageManifest } from "../../contract/images.ts";
import { exists } from "../../host/files.ts";
import { imageFiles } from "../../host/paths.ts";
import { checkReference, parseReference } from "../../oci/reference.ts";
import { stagingTree } from "../artifacts/staging.ts";

/** Names of the VMs that use an image at this moment. */
export type UsersOf = (name: string) => string[];

/**
 * Takes an image out of sight, then removes it.
 * @param refusal of an image that these VMs use
 * @returns false when it was not there
 */
export const takeAway = async (
  name: string,
  usersOf: UsersOf,
  refusal: (usedBy: readonly string[]) => BangerError,
): Promise<boolean> => {
  const refuse = () => {
    const usedBy = usersOf(name);
    if (usedBy.length > 0) throw refusal(usedBy);
  };
  refuse();
  const { folder } = imageFiles(name);
  await using staging = await stagingTree("delete");
  const gone = join(staging.path, "gone");
  try {
    await rename(folder, gone);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
  try {
    // A VM may have been made of it while it was on its way out.
    refuse();
  } catch (error) {
    if (!(await exists(folder))) await rename(gone, folder);
    throw error;
  }
  return true;
};

/** What to ask a registry for: an image that was pulled by a tag, which may mean another by now, and is not the catalog's. */
export const movableReference = ({ name, source }: ImageManifest): string | undefined =>
  source.type === "oci" && source.reference === name && parseReference(name)?.digest === undefined ? name : undefined;

export const tagMoved = (reference: string, digest: string, usedBy: readonly string[]): BangerError => {
  const { registry, repository } = checkReference(reference);
  const beside = checkReference(`${registry}/${repository}@${digest}`).name;
  return new BangerError(
    "IMAGE_IN_USE",
    `${reference} is another image by now, and ${usedBy.join(", ")} use${usedBy.length === 1 ? "s" : ""} the one that is here`,
    {
      hint: `get the new one beside it: banger image pull ${beside}; or delete them first: banger vm delete ${usedBy.join(" ")}`,
      details: { name: reference, digest, usedBy },
    },
  );
};

export const inUse = (name: string, usedBy: readonly string[]): BangerError =>
  new BangerError("IMAGE_IN_USE", `the image ${name} is used by ${usedBy.join(", ")}`, {
    hint: `delete them first: banger vm delete ${usedBy.join(" ")}`,
    details: { name, usedBy },
  });
