/** An HTTP server for files, that can be slow, cut off, redirect and change its mind. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

export type Served = {
  body: Buffer;
  etag?: string;
  /** Sends so many bytes of each answer and then nothing, until `breakOff`. */
  cutAfter?: number;
  /** Answers whole files only. */
  noRanges?: boolean;
  status?: number;
  location?: string;
};

export type FileServer = AsyncDisposable & {
  url(path: string): string;
  files: Map<string, Served>;
  /** Ends all connections. */
  breakOff(): void;
  requests: { path: string; range: string | undefined; ifRange: string | undefined }[];
};

export const fileServer = async (): Promise<FileServer> => {
  const files = new Map<string, Served>();
  const requests: FileServer["requests"] = [];
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const path = request.url ?? "";
    const { range, "if-range": ifRange } = request.headers;
    requests.push({ path, range, ifRange: ifRange?.toString() });
    const file = files.get(path);
    if (file === undefined) return void response.writeHead(404).end();
    if (file.location !== undefined) return void response.writeHead(302, { location: file.location }).end();
    if (file.status !== undefined) return void response.writeHead(file.status).end();
    const tag: Record<string, string> = file.etag === undefined ? {} : { etag: file.etag };
    const start = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
    const isFresh = ifRange === undefined || ifRange === file.etag;
    const isPart = range !== undefined && !file.noRanges && isFresh;
    if (isPart && start >= file.body.length) return void response.writeHead(416).end();
    const body = isPart ? file.body.subarray(start) : file.body;
    const length = { "content-length": String(body.length) };
    if (isPart)
      response.writeHead(206, {
        ...tag,
        ...length,
        "content-range": `bytes ${start}-${file.body.length - 1}/${file.body.length}`,
      });
    else response.writeHead(200, { ...tag, ...length });
    if (file.cutAfter === undefined) return void response.end(body);
    response.write(body.subarray(0, file.cutAfter));
  };
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return {
    files,
    requests,
    breakOff: () => server.closeAllConnections(),
    url: (path) => `http://127.0.0.1:${address.port}${path}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
};
