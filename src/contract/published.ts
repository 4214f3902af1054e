/** Ports of guests on this machine, as the API speaks of them. */
import * as z from "zod/mini";
import { ADDRESS } from "./names.ts";

const protocols = ["tcp", "udp"] as const;

const guestPort = z.number().check(z.int(), z.minimum(1), z.maximum(65535));
const address = z.string().check(z.regex(ADDRESS));

/** A port that is to be published. */
export const publishSchema = z.strictObject({
  proto: z.enum(protocols),
  guest: guestPort,
  /** On the host; 0: any that is free. Absent: the guest's number. */
  host: z.optional(z.number().check(z.int(), z.minimum(0), z.maximum(65535))),
  /** Of the host. Absent: the VM's own. */
  address: z.optional(address),
});
export type Publish = z.infer<typeof publishSchema>;

/** A port that is published. */
export const publishedSchema = z.object({
  proto: z.enum(protocols),
  guest: z.number(),
  /** Where it is reached on the host. */
  address: z.string(),
  host: z.number(),
  /** Published because something began to listen there, and for as long as it does. */
  auto: z.optional(z.boolean()),
  /** Why nothing listens on the host although the VM runs. */
  problem: z.optional(z.string()),
});
export type Published = z.infer<typeof publishedSchema>;
