/** The values of a VM's secrets: one file in the VM's folder, for this user's eyes only, and nowhere else. */
import { rm } from "node:fs/promises";
import * as z from "zod/mini";
import { BangerError } from "../../contract/errors.ts";
import { type SecretRecord, secretRecordSchema } from "../../contract/secrets.ts";
import { readFileIfThere, writeFileAtomic } from "../../host/files.ts";
import { vmFiles } from "../../host/paths.ts";

/** Where a value may go is written with it: a crash between two files must not send it elsewhere. */
const keptSchema = z.object({ ...secretRecordSchema.shape, value: z.string() });
export type KeptSecret = z.infer<typeof keptSchema>;
const fileSchema = z.object({ secrets: z.array(keptSchema) });

/** @param id of the VM @throws STATE_DAMAGED */
export const readValues = async (id: string): Promise<KeptSecret[]> => {
  const path = vmFiles(id).secrets;
  const text = await readFileIfThere(path);
  if (text === undefined) return [];
  try {
    return z.parse(fileSchema, JSON.parse(text)).secrets;
  } catch {
    // Its error would tell of what is in it.
    throw new BangerError("STATE_DAMAGED", `${path} is damaged`, {
      hint: "remove it, and set the values again: banger vm secret set VM NAME@HOST",
    });
  }
};

export const writeValues = async (id: string, secrets: readonly KeptSecret[]): Promise<void> => {
  const path = vmFiles(id).secrets;
  if (secrets.length === 0) await rm(path, { force: true });
  else await writeFileAtomic(path, JSON.stringify({ secrets }));
};

/** As the proxy uses them: what the VM's record names, each with its value where that is there. */
export const withValues = (
  records: readonly SecretRecord[],
  kept: readonly KeptSecret[],
): { record: SecretRecord; value: string | undefined }[] =>
  records.map((record) => {
    const found = kept.find(({ placeholder }) => placeholder === record.placeholder);
    return { record: found ?? record, value: found?.value };
  });
