/** A real registry on this machine, Debian's `docker-registry`, with users; and a proxy before it that does what bad networks and bad registries do. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { outputHolds } from "./wait.ts";

const run = promisify(execFile);

export const USER = "me";
export const PASSWORD = "secret";
/** bcrypt of PASSWORD, at its lowest cost: the registry computes it for each request. */
const HTPASSWD = "me:$2b$04$cAcM0dt73xvwiRnlSnGdhuIlpP.lH0tKU/pyjfzLzTOhzOcDpXesi\n";

export type Registry = AsyncDisposable & {
  /** `127.0.0.1:PORT` */
  host: string;
  /** Copies an image of a layout into it, with skopeo. */
  push(layout: string, tag: string, name: string, ...options: string[]): Promise<void>;
  /** Where it keeps a blob. */
  blobFile(digest: string): string;
  /** Certificate, with TLS. */
  certificate: string;
};

/** Puts `cert.pem`, signed by nobody else, and `key.pem` into a folder. */
export const makeCertificate = async (folder: string, address: string): Promise<void> => {
  await run("openssl", [
    ...["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", `/CN=${address}`],
    ...["-addext", `subjectAltName=IP:${address}`],
    ...["-keyout", join(folder, "key.pem"), "-out", join(folder, "cert.pem")],
  ]);
};

export const startRegistry = async ({ tls = false }: { tls?: boolean } = {}): Promise<Registry> => {
  const folder = await mkdtemp(join(tmpdir(), "banger-registry-"));
  const certificate = join(folder, "cert.pem");
  await writeFile(join(folder, "htpasswd"), HTPASSWD);
  if (tls) {
    await makeCertificate(folder, "127.0.0.1");
  }
  await mkdir(join(folder, "data"));
  await writeFile(
    join(folder, "config.yml"),
    JSON.stringify({
      version: "0.1",
      log: { level: "info" },
      storage: { filesystem: { rootdirectory: join(folder, "data") } },
      http: { addr: "127.0.0.1:0", ...(tls ? { tls: { certificate, key: join(folder, "key.pem") } } : {}) },
      auth: { htpasswd: { realm: "test", path: join(folder, "htpasswd") } },
    }),
  );
  const child: ChildProcess = spawn("docker-registry", ["serve", join(folder, "config.yml")], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const listening = /listening on (127\.0\.0\.1:\d+)/;
  const said = await outputHolds(child, listening, 30_000);
  child.stdout?.resume();
  child.stderr?.resume();
  const host = listening.exec(said)?.[1] ?? "";
  return {
    host,
    certificate,
    push: async (layout, tag, name, ...options) => {
      await run("skopeo", [
        ...[
          "copy",
          "-q",
          "--insecure-policy",
          "--preserve-digests",
          "--dest-tls-verify=false",
          "--dest-creds",
          `${USER}:${PASSWORD}`,
          ...options,
        ],
        ...[`oci:${layout}:${tag}`, `docker://${host}/${name}`],
      ]);
    },
    blobFile: (digest) => {
      const hex = digest.slice(7);
      return join(folder, "data/docker/registry/v2/blobs/sha256", hex.slice(0, 2), hex, "data");
    },
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await rm(folder, { recursive: true, force: true });
    },
  };
};

/** Credentials as `docker login` writes them. @returns the folder for DOCKER_CONFIG */
export const dockerConfig = async (folder: string, host: string, password = PASSWORD): Promise<string> => {
  await mkdir(folder, { recursive: true });
  const auth = Buffer.from(`${USER}:${password}`).toString("base64");
  await writeFile(join(folder, "config.json"), JSON.stringify({ auths: { [host]: { auth } } }));
  return folder;
};

/** What to do with a request in place of passing it on. Returns true when it was answered. */
export type Fault = (incoming: IncomingMessage, outgoing: ServerResponse, pass: (change: Change) => void) => boolean;
export type Change = {
  /** Breaks off after so many bytes of the body. */
  cutAfter?: number;
  /** Then sends nothing more, and keeps the connection. */
  stallAfter?: number;
  /** Changes the body's first byte. */
  corrupt?: boolean;
  /** Answers as if no range was asked for. */
  ignoreRange?: boolean;
  /** Bytes that are added at the end. */
  append?: number;
  /** Told of each chunk that is passed on. */
  onChunk?: (bytes: number) => void;
};

export type FaultyProxy = AsyncDisposable & {
  host: string;
  fault: Fault | undefined;
  /** `GET /v2/… [range]` of each request. */
  requests: string[];
};

export const startFaultyProxy = async (target: string): Promise<FaultyProxy> => {
  const [hostname = "", port = ""] = target.split(":");
  const passOn = (incoming: IncomingMessage, outgoing: ServerResponse, change: Change): void => {
    const headers = { ...incoming.headers, host: target };
    if (change.ignoreRange) delete headers.range;
    const upstream = request({ hostname, port, path: incoming.url, method: incoming.method, headers }, (response) => {
      const answer = { ...response.headers };
      if (change.append) answer["content-length"] = String(Number(answer["content-length"]) + change.append);
      outgoing.writeHead(response.statusCode ?? 500, answer);
      let sent = 0;
      response.on("data", (chunk: Buffer) => {
        if (change.corrupt && sent === 0) chunk[0] = (chunk[0] ?? 0) ^ 0xff;
        const most = change.cutAfter ?? change.stallAfter ?? Number.POSITIVE_INFINITY;
        const part = chunk.subarray(0, Math.max(0, most - sent));
        sent += part.length;
        if (part.length > 0) outgoing.write(part);
        change.onChunk?.(part.length);
        if (sent < most) return;
        response.destroy();
        // What was written must go out first, or the other side would have less than it was meant to.
        if (change.cutAfter !== undefined) outgoing.write("", () => outgoing.destroy());
      });
      response.on("end", () => outgoing.end(change.append ? Buffer.alloc(change.append) : undefined));
      response.on("error", () => outgoing.destroy());
    });
    upstream.on("error", () => outgoing.destroy());
    upstream.end();
  };
  const proxy: { fault: Fault | undefined; requests: string[] } = { fault: undefined, requests: [] };
  const server = createServer((incoming, outgoing) => {
    proxy.requests.push(`${incoming.method} ${incoming.url} ${incoming.headers.range ?? ""}`.trim());
    const pass = (change: Change) => passOn(incoming, outgoing, change);
    if (!proxy.fault?.(incoming, outgoing, pass)) pass({});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port: own } = server.address() as AddressInfo;
  return Object.assign(proxy, {
    host: `127.0.0.1:${own}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  });
};
