/** One kept connection to Firecracker's API socket: HTTP/1.1, one request at a time. Its end is the end of Firecracker. */
import type { Duplex } from "node:stream";
import { BangerError } from "../../contract/errors.ts";

export type HttpAnswer = { status: number; body: string };

export type HttpConnection = {
  /** @throws TOOL_FAILED when the connection ends first, or the answer is none */
  request(method: "GET" | "PUT" | "PATCH", path: string, body?: unknown): Promise<HttpAnswer>;
  /** Resolves when the connection has ended; never rejects. */
  readonly closed: Promise<void>;
  close(): void;
  /** Requests that were sent so far. */
  readonly requests: number;
};

/** Longest answer taken, in bytes. The largest is the description of a VM, about 2 KiB. */
const MAX_ANSWER = 1024 * 1024;

export const httpConnection = (channel: Duplex): HttpConnection => {
  let waiting: { resolve(answer: HttpAnswer): void; reject(error: BangerError): void } | undefined;
  let over: BangerError | undefined;
  let received = Buffer.alloc(0);
  let requests = 0;
  let last: Promise<unknown> = Promise.resolve();
  const closed = Promise.withResolvers<void>();

  const end = (reason: string) => {
    over ??= new BangerError("TOOL_FAILED", `Firecracker's API connection ended: ${reason}`);
    waiting?.reject(over);
    waiting = undefined;
    channel.destroy();
    closed.resolve();
  };

  channel.on("data", (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    try {
      const parsed = parseAnswer(received);
      if (!parsed) return;
      received = received.subarray(parsed.length);
      const asked = waiting;
      waiting = undefined;
      if (!asked) throw new Error("an answer that nobody asked for");
      asked.resolve(parsed.answer);
    } catch (error) {
      end(error instanceof Error ? error.message : String(error));
    }
  });
  channel.once("error", (error) => end(error.message));
  channel.once("end", () => end("closed"));
  channel.once("close", () => end("closed"));

  const send = (method: string, path: string, body: unknown): Promise<HttpAnswer> => {
    if (over) return Promise.reject(over);
    const text = body === undefined ? "" : JSON.stringify(body);
    const headers = ["Host: localhost", "Accept: application/json"];
    if (text) headers.push("Content-Type: application/json", `Content-Length: ${Buffer.byteLength(text)}`);
    const answer = new Promise<HttpAnswer>((resolve, reject) => {
      waiting = { resolve, reject };
    });
    requests++;
    channel.write(`${method} ${path} HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n${text}`);
    return answer;
  };

  return {
    request: (method, path, body) => {
      const answer = last.then(() => send(method, path, body));
      last = answer.catch(() => undefined);
      return answer;
    },
    closed: closed.promise,
    close: () => end("closed by banger"),
    get requests() {
      return requests;
    },
  };
};

/** Undefined while it is not whole. */
const parseAnswer = (bytes: Buffer): { answer: HttpAnswer; length: number } | undefined => {
  const headersEnd = bytes.indexOf("\r\n\r\n");
  if (headersEnd < 0) {
    if (bytes.length > MAX_ANSWER) throw new Error("an answer over 1 MiB");
    return undefined;
  }
  const [first = "", ...headers] = bytes.subarray(0, headersEnd).toString("latin1").split("\r\n");
  const [, status] = /^HTTP\/1\.[01] (\d{3})\b/.exec(first) ?? [];
  if (status === undefined) throw new Error(`not an answer: ${first.slice(0, 80)}`);
  if (headers.some((line) => /^transfer-encoding:/i.test(line))) throw new Error("an answer in chunks");
  const lengths = headers.flatMap((line) => /^content-length:\s*(\d+)\s*$/i.exec(line)?.[1] ?? []);
  const size = Number(lengths[0] ?? 0);
  if (size > MAX_ANSWER) throw new Error("an answer over 1 MiB");
  const start = headersEnd + 4;
  if (bytes.length < start + size) return undefined;
  const body = bytes.subarray(start, start + size).toString("utf8");
  return { answer: { status: Number(status), body }, length: start + size };
};
