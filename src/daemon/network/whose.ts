/**
 * Whose a refused packet was. The filter before a VM's network asks (agent/src/host/whose.rs), with a line `VM tcp|udp PORT TO`, and gets `NAME(PID)` or an empty one:
 * what the guest's agent says of its sockets.
 */
import { createServer, type Server, type Socket } from "node:net";
import { BangerError } from "../../contract/errors.ts";
import { listenAt } from "../../host/sockets.ts";
import type { Log } from "../log.ts";
import type { VmActor } from "../vms/actor.ts";
import { askGuest, type GuestSocket, soon } from "./owner.ts";

/** Longest question, in bytes. */
const MAX_LINE = 128;

export type Question = GuestSocket & { vm: string };

/** @returns undefined for what is none */
export const questionIn = (line: string): Question | undefined => {
  const [, vm = "", proto, port, to] = /^([0-9a-f]{1,64}) (tcp|udp) (\d{1,5}) (\d{1,5})$/.exec(line) ?? [];
  return proto === "tcp" || proto === "udp" ? { vm, proto, port: Number(port), to: Number(to) } : undefined;
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
  const ask = async (question: Question): Promise<string> => {
    const actor = find(question.vm);
    // Nobody wakes a VM for this.
    if (actor?.row().state !== "running") return "";
    using limited = soon();
    return await askGuest(await actor.guest(limited), question, limited);
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
