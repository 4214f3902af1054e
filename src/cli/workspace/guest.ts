/** Programs of the guest that work for banger and not for the user. */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { BangerError } from "../../contract/errors.ts";
import type { Client } from "../../client/client.ts";

/** Of what such a program says, so many bytes are kept. */
const MOST = 256 * 1024 * 1024;

export type GuestProgram = (
  argv: readonly string[],
  options?: { input?: Uint8Array; env?: Record<string, string>; okStatus?: readonly number[] },
) => Promise<{ status: number; stdout: Buffer; stderr: string }>;

/** @returns what runs a program in the guest as root, in `/`; it throws GUEST_ERROR when the program fails, EXEC_NOT_FOUND when there is none */
export const guestProgram =
  (client: Client, vm: string, signal: AbortSignal): GuestProgram =>
  async (argv, { input = new Uint8Array(0), env, okStatus = [0] } = {}) => {
    const request = { argv: [...argv], cwd: "/", user: "root", ...(env ? { env } : {}) };
    const stream = await client.stream("vmExec", { vm }, request, { signal });
    const collect = async (source: Readable): Promise<Buffer> => {
      const chunks: Buffer[] = [];
      let size = 0;
      for await (const chunk of source) {
        size += (chunk as Buffer).length;
        if (size > MOST) throw new BangerError("GUEST_ERROR", `${argv[0]} in the guest gives more than ${MOST} bytes`);
        chunks.push(chunk as Buffer);
      }
      return Buffer.concat(chunks);
    };
    // A program that ends without reading all is judged by its status.
    const fed = pipeline(Readable.from([input]), stream.stdin).catch(() => undefined);
    try {
      const [end, stdout, stderr] = await Promise.all([stream.closed, collect(stream.stdout), collect(stream.stderr)]);
      await fed;
      const status = end.exit ?? 128 + (end.signal ?? 0);
      const said = stderr.toString("utf8").trim();
      if (!okStatus.includes(status))
        throw new BangerError(
          "GUEST_ERROR",
          `${argv[0]} failed in the guest: ${said.split("\n")[0] || `status ${status}`}`,
        );
      return { status, stdout, stderr: said };
    } catch (error) {
      stream.abort();
      throw error;
    }
  };
