/** Templates as the API speaks of them. Sizes are bytes, times milliseconds since 1970. */
import * as z from "zod/mini";

export const templateInfoSchema = z.object({
  key: z.string(),
  image: z.string(),
  kernel: z.string(),
  vcpu: z.number(),
  memory: z.number(),
  diskSize: z.number(),
  network: z.string(),
  vmm: z.string(),
  diskUsed: z.number(),
  createdAt: z.number(),
  usedAt: z.number(),
});
export type TemplateInfo = z.infer<typeof templateInfoSchema>;
