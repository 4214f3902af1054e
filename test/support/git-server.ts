/** A git server over HTTP: git's own http-backend behind a web server, started for each request as CGI wants it. */
import { spawn } from "node:child_process";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createSecureServer } from "node:https";

export type GitServer = AsyncDisposable & {
  /** @param user `name:password@`, which every request must then bring */
  url(path: string, user?: string): string;
  /** Methods and paths, in their order. */
  requests: string[];
};

/**
 * @param root whose repositories are served, and can be pushed to by whoever may read them
 * @param secure where it is reached over TLS, and by what certificate; else by HTTP on the loopback
 */
export const gitServer = async (
  root: string,
  password?: string,
  secure?: { address: string; certificate: { key: string | Buffer; cert: string } },
): Promise<GitServer> => {
  const requests: string[] = [];
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    const url = new URL(request.url ?? "/", "http://localhost");
    requests.push(`${request.method} ${url.pathname}`);
    const expected = `Basic ${Buffer.from(`me:${password}`).toString("base64")}`;
    if (password !== undefined && request.headers.authorization !== expected)
      return void response.writeHead(401, { "www-authenticate": 'Basic realm="git"' }).end();
    const header = (name: string) => request.headers[name]?.toString() ?? "";
    const backend = spawn("git", ["http-backend"], {
      env: {
        PATH: process.env.PATH,
        GIT_CONFIG_NOSYSTEM: "1",
        GIT_CONFIG_GLOBAL: "/dev/null",
        GIT_PROJECT_ROOT: root,
        GIT_HTTP_EXPORT_ALL: "1",
        PATH_INFO: decodeURIComponent(url.pathname),
        QUERY_STRING: url.search.slice(1),
        REQUEST_METHOD: request.method,
        CONTENT_TYPE: header("content-type"),
        ...(header("content-length") === "" ? {} : { CONTENT_LENGTH: header("content-length") }),
        HTTP_CONTENT_ENCODING: header("content-encoding"),
        GIT_PROTOCOL: header("git-protocol"),
        REMOTE_USER: "me",
      },
      stdio: ["pipe", "pipe", "ignore"],
    });
    // It may know its answer before it has read all.
    backend.stdin.on("error", () => backend.stdin.destroy());
    request.pipe(backend.stdin);
    let head = Buffer.alloc(0);
    const onHead = (chunk: Buffer): void => {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return;
      backend.stdout.off("data", onHead);
      const lines = head.subarray(0, end).toString("latin1").split("\r\n");
      const headers = lines.map((line): [string, string] => [
        line.slice(0, line.indexOf(":")),
        line.slice(line.indexOf(":") + 1).trim(),
      ]);
      const status = headers.find(([name]) => name === "Status")?.[1] ?? "200";
      response.writeHead(
        Number.parseInt(status, 10),
        Object.fromEntries(headers.filter(([name]) => name !== "Status")),
      );
      response.write(head.subarray(end + 4));
      backend.stdout.pipe(response);
    };
    backend.stdout.on("data", onHead);
  };
  const server = secure ? createSecureServer(secure.certificate, answer) : createServer(answer);
  const at = secure?.address ?? "127.0.0.1";
  await new Promise<void>((resolve) => server.listen(0, at, resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return {
    requests,
    url: (path, user = "") => `${secure ? "https" : "http"}://${user}${at}:${address.port}/${path}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
};
