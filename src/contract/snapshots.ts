/** Snapshots as the API speaks of them. Sizes are bytes, times milliseconds since 1970. */
import * as z from "zod/mini";
import { secretSchema } from "./secrets.ts";
import { savedMachineFields } from "./templates.ts";
import { vmSchema } from "./vms.ts";

export const snapshotInfoSchema = z.object({
  name: z.string(),
  /** Name of the VM it was taken of. */
  vm: z.string(),
  ...savedMachineFields,
  /** What is wrong with it, where it can only be deleted; the fields of its VM are then empty. */
  damaged: z.optional(z.string()),
});
export type SnapshotInfo = z.infer<typeof snapshotInfoSchema>;

export const snapshotRequestSchema = z.strictObject({ name: z.optional(z.string()) });

/** `pause`: how long the VM stood still, in ms. `memoryWritten`: of its memory, in bytes. */
export const snapshotResultSchema = z.object({
  snapshot: snapshotInfoSchema,
  pause: z.number(),
  memoryWritten: z.number(),
});

/** Absent name: one is made up. `secrets`: a snapshot holds no values. */
export const restoreRequestSchema = z.strictObject({
  name: z.optional(z.string()),
  secrets: z.optional(z.array(secretSchema).check(z.maxLength(100))),
});
export type RestoreRequest = z.infer<typeof restoreRequestSchema>;

/** Absolute path of a file that is not there yet. */
export const exportSnapshotSchema = z.strictObject({ path: z.string() });
export const exportedSnapshotSchema = z.object({ path: z.string(), size: z.number() });
/** `path`: what an export wrote. */
export const importSnapshotSchema = z.strictObject({ path: z.string(), name: z.string() });

export const MAX_FORKS = 1000;
export const forkRequestSchema = z.strictObject({
  count: z.number().check(z.int(), z.positive(), z.maximum(MAX_FORKS)),
  /** The forks are called PREFIX-1, PREFIX-2, …; default: the VM's name. */
  prefix: z.optional(z.string()),
});
export const forkResultSchema = z.object({ vms: z.array(vmSchema), pause: z.number() });
