/** The proxy of secrets before real servers of this machine, with real clients: what is a guest's channel elsewhere is a TCP port here. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer as createHttp, type RequestListener, type Server } from "node:http";
import { createServer as createHttps } from "node:https";
import { type AddressInfo, createServer as createTcp, type Socket } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import { SECRET_HEADERS } from "../../src/contract/secret-text.ts";
import { parseNetRule } from "../../src/contract/net-rules.ts";
import type { NetRule } from "../../src/contract/network.ts";
import { outgoing } from "../../src/daemon/network/outgoing.ts";
import type { VmRow } from "../../src/daemon/store/vms.ts";
import { type Tell, toldLine } from "../../src/daemon/network/told.ts";
import { openAuthority } from "../../src/daemon/secrets/authority.ts";
import { authorityCertificate, hostCertificate, newKeyPair } from "../../src/daemon/secrets/certificate.ts";
import { environmentFor } from "../../src/daemon/secrets/guest.ts";
import { secretsProxy } from "../../src/daemon/secrets/proxy.ts";
import { type KnownSecret, knownSecret } from "../../src/daemon/secrets/put-in.ts";

export const ownAddress = (): string => {
  const own = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal);
  assert.ok(own, "this machine has an address");
  return own.address;
};

/** Certificates for servers, by an authority of their own. */
export const serverAuthority = async () => {
  const keys = await newKeyPair();
  const key = keys.privateKey.export({ type: "pkcs8", format: "pem" });
  return {
    certificate: authorityCertificate(keys),
    /** What `createServer` takes. */
    serverFor: (host: string) => ({ key, cert: hostCertificate(host, keys.publicKey, keys) }),
  };
};

export const listening = async (server: Server | ReturnType<typeof createTcp>, address: string): Promise<number> => {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, address, resolve);
  });
  return (server.address() as AddressInfo).port;
};

type Done = { status: number; stdout: string; stderr: string };

export type BedOptions = {
  /** Of the VM's network: `allow RULE`, `deny RULE`; what this machine's address needs is there already. */
  rules?: string[];
  network?: VmRow["network"];
  idleLimit?: number;
  /** Which process of the guest every connection is of: `NAME(PID)`. */
  whose?: string;
  /** Names and where they lead; else to this machine's own address. */
  names?: Record<string, () => string[]>;
};

export type SecretsBed = Awaited<ReturnType<typeof secretsBed>>;

export const secretsBed = async ({
  rules = [],
  network = "policy",
  idleLimit,
  whose = "",
  names = {},
}: BedOptions = {}) => {
  const folder = await mkdtemp(join(tmpdir(), "banger-secrets-"));
  const state = process.env.XDG_STATE_HOME;
  process.env.XDG_STATE_HOME = folder;
  const authority = await openAuthority();
  if (state === undefined) delete process.env.XDG_STATE_HOME;
  else process.env.XDG_STATE_HOME = state;
  const own = ownAddress();
  const servers = await serverAuthority();
  const closers: (() => void)[] = [];
  const lines: string[] = [];
  const parsed = (texts: readonly string[]): NetRule[] =>
    texts.map((text) => {
      const [action = "", rule = ""] = text.split(" ");
      return parseNetRule(action === "deny" ? "deny" : "allow", rule);
    });
  let current = parsed([...rules, `allow ${own}`]);
  let secrets: KnownSecret[] = [];
  const lookups: string[] = [];
  const tell: Tell = async (told) => void lines.push(toldLine(told, (await told.whose?.()) ?? ""));
  const outwards = outgoing(
    () => ({ network, rules: current, team: [] }),
    tell,
    async (name) => {
      lookups.push(name);
      return names[name]?.() ?? [own];
    },
  );
  const proxy = secretsProxy({
    secrets: () => secrets,
    outgoing: outwards,
    authority,
    roots: () => createSecureContext({ ca: servers.certificate }),
    tell,
    ...(idleLimit === undefined ? {} : { idleLimit }),
  });
  const sockets = new Set<Socket>();
  const front = createTcp({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    proxy.serve(socket, async () => whose);
  });
  const port = await listening(front, "127.0.0.1");
  const bundle = join(folder, "bundle.pem");
  await writeFile(bundle, authority.certificate + servers.certificate);
  const serve = async (server: Server): Promise<number> => {
    const open = new Set<Socket>();
    server.on("connection", (socket: Socket) => {
      open.add(socket);
      socket.on("error", () => undefined);
      socket.once("close", () => open.delete(socket));
    });
    closers.push(() => {
      server.close();
      for (const socket of open) socket.destroy();
    });
    return await listening(server, own);
  };
  let placeholders = 0;
  return {
    own,
    port,
    folder,
    bundle,
    lines,
    lookups,
    servers,
    outwards,
    https: (host: string, handler: RequestListener) => serve(createHttps(servers.serverFor(host), handler)),
    http: (handler: RequestListener) => serve(createHttp(handler)),
    listen: serve,
    /** @returns the placeholder */
    give: (
      name: string,
      hosts: string[],
      value: string | undefined,
      headers: string[] = [...SECRET_HEADERS],
    ): string => {
      const placeholder = `banger_secret_${String(++placeholders).padStart(32, "0")}`;
      secrets = [...secrets, knownSecret({ name, hosts, headers, placeholder }, value)];
      return placeholder;
    },
    setRules: async (texts: readonly string[]) => {
      current = parsed(texts);
      await outwards.judgeAgain();
    },
    /** Runs a program with a guest's environment. */
    run: (program: string, args: readonly string[], env: Record<string, string> = {}): Promise<Done> =>
      new Promise((resolve) => {
        const told = environmentFor(
          secrets.map(({ name, headers, placeholder }) => ({ name, hosts: [], headers, placeholder })),
          bundle,
        );
        const proxied = Object.entries(told).map(([name, value]) => [name, value.replace(/:42070$/, `:${port}`)]);
        const environment = { PATH: process.env.PATH, HOME: folder, ...Object.fromEntries(proxied), ...env };
        execFile(program, args, { env: environment, maxBuffer: 1 << 28 }, (error, stdout, stderr) =>
          resolve({ status: error ? Number(error.code ?? 1) : 0, stdout, stderr }),
        );
      }),
    [Symbol.asyncDispose]: async () => {
      proxy.close();
      outwards.close();
      front.close();
      for (const socket of sockets) socket.destroy();
      for (const close of closers) close();
      await rm(folder, { recursive: true, force: true });
    },
  };
};
