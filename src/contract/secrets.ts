/** Secrets of a VM, as the API speaks of them. The daemon checks more than stands here: secret-text.ts. */
import * as z from "zod/mini";

const text = z.string().check(z.maxLength(16 * 1024 + 2));
const texts = z.array(z.string().check(z.maxLength(300))).check(z.maxLength(100));

/** `hosts` and `headers` as in secret-text.ts; absent headers: those that usually carry credentials. */
export const secretSchema = z.strictObject({
  name: z.string(),
  value: text,
  hosts: texts,
  headers: z.optional(texts),
});
export type Secret = z.infer<typeof secretSchema>;

/** Of a secret that is there already, absent fields stay as they are. */
export const setSecretSchema = z.strictObject({
  name: z.string(),
  value: text,
  hosts: z.optional(texts),
  headers: z.optional(texts),
});
export type SetSecret = z.infer<typeof setSecretSchema>;

export const secretsRequestSchema = z.strictObject({
  set: z.optional(z.array(setSecretSchema).check(z.maxLength(100))),
  remove: z.optional(z.array(z.string()).check(z.maxLength(100))),
});
export type SecretsRequest = z.infer<typeof secretsRequestSchema>;

/** What a VM's record says of one: everything but the value. */
export const secretRecordSchema = z.object({
  name: z.string(),
  hosts: z.array(z.string()),
  headers: z.array(z.string()),
  /** What the guest has in its place. */
  placeholder: z.string().check(z.regex(/^banger_secret_[0-9a-f]{32}$/)),
});
export type SecretRecord = z.infer<typeof secretRecordSchema>;

/** `given`: its value is there; the copy that a snapshot gives has none until it is set. */
export const secretInfoSchema = z.object({ ...secretRecordSchema.shape, given: z.boolean() });
export type SecretInfo = z.infer<typeof secretInfoSchema>;
