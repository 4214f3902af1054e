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

/** Names of what a VM has changed: of files that the repository has, then of all. What cannot be told is left out: the patch then says why. */
export const namesIn = (
  client: Client,
  vm: Vm,
  path: string,
  signal: AbortSignal,
): { known: Promise<Listed[]>; all: Promise<Listed[]> } => {
  const program = guestProgram(client, vm.id, signal);
  const { known, untracked } = listPrograms(path);
  const [first, second] = [program(known), program(untracked)];
  const names = { known: tellable(first), all: tellable(first, second) };
  // Whoever leaves at once waits for neither.
  for (const each of [first, second, ...Object.values(names)]) each.catch(() => undefined);
  return names;
};

const tellable = async (...answers: Promise<{ stdout: Buffer }>[]): Promise<Listed[]> => {
  try {
    const [known, untracked] = await Promise.all(answers);
    return readListing(known?.stdout ?? Buffer.alloc(0), untracked?.stdout ?? Buffer.alloc(0));
  } catch (error) {
    if (!(error instanceof BangerError) || error.code !== "GUEST_ERROR") throw error;
    return [];
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
