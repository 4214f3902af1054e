/**
 * Whose a refused packet was. The filter before a VM's network asks (agent/src/host/whose.rs), with a line `VM tcp|udp PORT TO`, and gets `NAME(PID)` or an empty one:
 * what the guest's agent says of its sockets.
 */
import { createServer, type Server, type Socket } from "node:net";
import * as z from "zod/mini";
import { BangerError } from "../../contract/errors.ts";
import { silentProgress, withDeadline } from "../../contract/progress.ts";
import { callGuest } from "../../guest/call.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import { listenAt } from "../../host/sockets.ts";
import type { Log } from "../log.ts";
import type { VmActor } from "../vms/actor.ts";

/** The filter does not wait longer, in ms. */
const LIMIT = 300;
/** Longest question, in bytes. */
const MAX_LINE = 128;
/** Of a process, in characters. */
const MAX_NAME = 32;

export type Question = { vm: string; proto: "tcp" | "udp"; port: number; to: number };

/** @returns undefined for what is none */
export const questionIn = (line: string): Question | undefined => {
  const [, vm = "", proto, port, to] = /^([0-9a-f]{1,64}) (tcp|udp) (\d{1,5}) (\d{1,5})$/.exec(line) ?? [];
  return proto === "tcp" || proto === "udp" ? { vm, proto, port: Number(port), to: Number(to) } : undefined;
};

const ownerSchema = z.object({
  pid: z.optional(z.number().check(z.int(), z.minimum(1), z.maximum(2 ** 31 - 1))),
  process: z.optional(z.string()),
});

/** As it is written into a log: a process calls itself what it likes. @param answer of the agent's `whose` (docs/guest-protocol.md) */
export const ownerIn = (answer: unknown): string => {
  const { success, data } = z.safeParse(ownerSchema, answer);
  if (!success || data.pid === undefined || !data.process) return "";
  return `${data.process.replace(/[^\w.+:@/-]/g, "_").slice(0, MAX_NAME)}(${data.pid})`;
};

const lineOf = (socket: Socket): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = "";
    socket.setEncoding("latin1").on("data", (chunk: string) => {
      text += chunk;
      const end = text.indexOf("\n");
      if (end >= 0) resolve(text.slice(0, end));
      else if (text.length > MAX_LINE) reject(new BangerError("INVALID_REQUEST", "a question that does not end"));
    });
    socket.once("close", () => reject(new BangerError("CANCELLED", "whoever asked has gone away")));
  });

/** Listens at `path` until the server is closed. @param find the VM with this id */
export const listenWhose = async (
  path: string,
  find: (id: string) => VmActor | undefined,
  log: Log,
): Promise<Server> => {
  const ask = async ({ vm, proto, port, to }: Question): Promise<string> => {
    const actor = find(vm);
    // Nobody wakes a VM for this.
    if (actor?.row().state !== "running") return "";
    using limited = withDeadline(
      silentProgress(),
      LIMIT,
      () => new BangerError("CANCELLED", "the guest took too long"),
    );
    const guest: GuestConnection = await actor.guest(limited);
    if (!guest.hello.features?.includes("whose")) return "";
    return ownerIn(await callGuest(guest, { op: "whose", proto, port, to }, limited));
  };
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    lineOf(socket)
      .then(async (line) => {
        const question = questionIn(line);
        socket.end(`${question ? await ask(question) : ""}\n`);
      })
      .catch((error: unknown) => {
        log.debug("not known whose a refused packet was", { error });
        socket.destroy();
      });
  });
  await listenAt(server, path);
  return server;
};
