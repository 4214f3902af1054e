/** The guest's side of the stand-in: Firecracker's vsock socket on the host, and behind it the real agent as a process for each connection. */
import { spawn } from "node:child_process";
import { connect, createServer, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { GuestMachine } from "./machine.ts";
import type { FakeSettings } from "./settings.ts";

const PORT = 1024;

export type FakeGuest = {
  /** Listens for the host, as it does from `PUT /vsock` on. @throws EADDRINUSE */
  listen(path: string): Promise<void>;
  /** The guest has booted: it listens, and says so. */
  boot(): void;
  /** The guest goes on from a snapshot: it listens already. */
  goOn(): void;
  /** What a snapshot does: connections end, listeners stay. */
  cutConnections(): void;
};

/** @param machine runs the guest; without it the agent is a process of its own for each connection */
export const fakeGuest = (settings: FakeSettings, machine: GuestMachine | undefined): FakeGuest => {
  let listens = false;
  let path = "";
  let server: Server | undefined;
  let ports = 1 << 30;
  const connections = new Set<Socket>();

  const openChannel = async (): Promise<Duplex | undefined> => {
    if (machine) return await machine.openAgentChannel();
    if (settings.agent === undefined) return undefined;
    const agent = spawn(settings.agent, ["--serve-fd", "3"], { stdio: ["ignore", "ignore", "inherit", "pipe"] });
    return agent.stdio[3] as Duplex;
  };

  const serve = async (host: Socket) => {
    host.write(`OK ${ports++}\n`);
    const channel = await openChannel();
    if (!channel) return;
    host.pipe(channel).pipe(host);
    channel.on("error", () => host.destroy());
    host.on("close", () => channel.destroy());
  };

  const onConnection = (host: Socket) => {
    connections.add(host);
    host.on("error", () => host.destroy());
    host.on("close", () => connections.delete(host));
    host.once("data", (first: Buffer) => {
      const [, port] = /^CONNECT (\d+)\n/.exec(first.toString("latin1")) ?? [];
      // A guest that does not listen there answers with a reset.
      if (Number(port) !== PORT || !listens) {
        host.destroy();
        return;
      }
      host.pause();
      const rest = first.subarray(first.indexOf("\n") + 1);
      if (rest.length > 0) host.unshift(rest);
      void serve(host);
    });
  };

  return {
    listen: async (at) => {
      const listening = createServer(onConnection);
      await new Promise<void>((resolve, reject) => {
        listening.once("error", reject);
        listening.listen(at, resolve);
      });
      server?.close();
      server = listening;
      path = at;
    },
    boot: () => {
      listens = true;
      if (settings.silentGuest) return;
      const knock = connect(`${path}_${PORT}`);
      knock.on("error", () => knock.destroy());
      knock.on("connect", () => knock.end());
    },
    goOn: () => {
      listens = true;
    },
    cutConnections: () => {
      // As the real one: nobody is told until something is sent, which the guest then refuses.
      for (const connection of connections) connection.unpipe().on("data", () => connection.destroy());
    },
  };
};
