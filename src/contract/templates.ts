/** Templates as the API speaks of them. Sizes are bytes, times milliseconds since 1970. */
import * as z from "zod/mini";
import { createVmSchema } from "./vms.ts";

/** The VMs that a template is for. Absent fields are filled as for a new VM. */
export const warmSchema = z.pick(createVmSchema, {
  image: true,
  kernel: true,
  vcpu: true,
  memory: true,
  diskSize: true,
  network: true,
});
export type Warm = z.infer<typeof warmSchema>;

/** What every saved machine tells. */
export const savedMachineFields = {
  image: z.string(),
  kernel: z.string(),
  vcpu: z.number(),
  memory: z.number(),
  diskSize: z.number(),
  network: z.string(),
  vmm: z.string(),
  diskUsed: z.number(),
  createdAt: z.number(),
};

export const templateInfoSchema = z.object({ key: z.string(), ...savedMachineFields, usedAt: z.number() });
export type TemplateInfo = z.infer<typeof templateInfoSchema>;
