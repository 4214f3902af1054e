/** The loopback address of each VM. */
import { createHash } from "node:crypto";

/**
 * An address of 127/8 for a new VM. By its id, so that the VMs of other users of this host have others, and away from what distributions
 * use themselves (127.0.0.1, 127.0.0.53, 127.0.1.1).
 * @param taken those of the other VMs
 */
export const newAddress = (id: string, taken: ReadonlySet<string>): string => {
  for (let attempt = 0; ; attempt++) {
    const [a = 0, b = 0, c = 0] = createHash("sha256").update(`${id} ${attempt}`).digest();
    const address = `127.${64 + (a % 128)}.${b}.${1 + (c % 254)}`;
    if (!taken.has(address)) return address;
  }
};
