/** A VM's work, from its git to a review: names first, then the patch. */
import { Readable } from "node:stream";
import { BangerError } from "../../../contract/errors.ts";
import type { Vm } from "../../../contract/vms.ts";
import type { Client } from "../../../client/client.ts";
import { type Listed, listPrograms, readListing } from "../../../workspace/review/listing.ts";
import { readPatch } from "../../../workspace/review/patch.ts";
import type { Review } from "../../../workspace/review/review.ts";
import { guestProgram } from "../guest.ts";
import { patchOf } from "../patch.ts";

/**
 * Asks a VM for the names of what it has changed.
 * @returns undefined where it cannot tell: the patch then says why
 */
export const namesIn = async (
  client: Client,
  vm: Vm,
  path: string,
  signal: AbortSignal,
): Promise<Listed[] | undefined> => {
  const program = guestProgram(client, vm.id, signal);
  const { known, untracked } = listPrograms(path);
  try {
    const [first, second] = await Promise.all([program(known), program(untracked)]);
    return readListing(first.stdout, second.stdout);
  } catch (error) {
    if (!(error instanceof BangerError) || error.code !== "GUEST_ERROR") throw error;
    return undefined;
  }
};

/** Fills a review with the patch, file by file. @param onFile is told after some of them */
export const loadPatch = async (
  client: Client,
  vm: Vm,
  review: Review,
  signal: AbortSignal,
  onFile: () => void = () => undefined,
): Promise<void> => {
  for await (const change of readPatch(Readable.from(patchOf(client, vm, { format: "diff", signal })))) {
    await review.add(change);
    onFile();
  }
  await review.complete();
};
