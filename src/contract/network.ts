/** A VM's network, as the API speaks of it. */
import * as z from "zod/mini";

/** user: the world, and nothing near; learn: as user, and what it reaches is written down; policy: only what rules allow; none: no network card. */
export const networkModes = ["user", "none", "policy", "learn"] as const;

const port = z.number().check(z.int(), z.minimum(1), z.maximum(65535));

/** The first rule that fits decides. */
export const netRuleSchema = z.strictObject({
  action: z.enum(["allow", "deny"]),
  /** `192.168.1.0/24` or `2001:db8::/32`, where `0.0.0.0/0` is any, of IPv6 too; `example.org`, or `*.example.org` for all below it. */
  to: z
    .string()
    .check(
      z.regex(
        /^(?:\d{1,3}(?:\.\d{1,3}){3}\/(?:[12]?\d|3[0-2])|[\da-f:]{2,39}\/(?:\d{1,2}|1[01]\d|12[0-8])|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)+)$/,
      ),
    ),
  proto: z.enum(["any", "tcp", "udp"]),
  /** First and last. */
  ports: z.optional(z.tuple([port, port])),
});
export type NetRule = z.infer<typeof netRuleSchema>;

/** A network of VMs that reach one another by `NAME.vm`. */
export const teamSchema = z.strictObject({
  name: z.string(),
  /** Of the VM there: IPv4. */
  address: z.string(),
});

/** `add` come before those that are there, in their order; `remove` are taken away. */
export const netRequestSchema = z.strictObject({
  add: z.optional(z.array(netRuleSchema)),
  remove: z.optional(z.array(netRuleSchema)),
});
export type NetRequest = z.infer<typeof netRequestSchema>;
