/** A VM's work, from its git to a review: names first, then the patch. */
import { Readable } from "node:stream";
import { BangerError } from "../../../contract/errors.ts";
import type { Vm } from "../../../contract/vms.ts";
import type { Client } from "../../../client/client.ts";
import { type Listed, listProgram, readListing } from "../../../workspace/review/listing.ts";
import { readPatch } from "../../../workspace/review/patch.ts";
import type { Review } from "../../../workspace/review/review.ts";
import { patchOf } from "../patch.ts";

/**
 * Names of what a VM has changed, as it finds them; it begins at once. What cannot be told is left out: the patch then says why.
 * @param path of the workspace in the VM
 */
export const namesIn = (client: Client, vm: Vm, path: string, signal: AbortSignal): AsyncGenerator<Listed[]> => {
  const opening = client.stream(
    "vmExec",
    { vm: vm.id },
    { argv: listProgram(path), cwd: "/", user: "root" },
    { signal },
  );
  // Whoever leaves at once does not wait for it.
  opening.catch(() => undefined);
  return (async function* () {
    const stream = await opening;
    stream.stdin.end();
    stream.stderr.resume();
    try {
      yield* readListing(stream.stdout as AsyncIterable<Uint8Array>);
      await stream.closed;
    } catch (error) {
      stream.abort();
      if (!(error instanceof BangerError) || error.code !== "GUEST_ERROR") throw error;
    }
  })();
};

/**
 * Fills a review with the patch, file by file.
 * @param onFile is told after some of them
 * @returns false where files went on changing while they were read
 */
export const loadPatch = async (
  client: Client,
  vm: Vm,
  review: Review,
  signal: AbortSignal,
  onFile: () => void = () => undefined,
): Promise<boolean> => {
  let settled = true;
  const onUnsettled = async () => {
    settled = false;
  };
  for await (const change of readPatch(Readable.from(patchOf(client, vm, { format: "diff", signal, onUnsettled })))) {
    await review.add(change);
    onFile();
  }
  await review.complete();
  return settled;
};
