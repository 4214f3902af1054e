/** The one stream that goes to the guest: git folders, then files, as a GNU tar archive. */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import { BangerError, toBangerError } from "../contract/errors.ts";
import { packTar } from "../host/tar.ts";
import type { Entry, State } from "./state.ts";

const BLOCK = 512;
type Kind = "0" | "2" | "5" | "L" | "K";
type Head = { path: string; mode: number; size: number; mtime: number; kind: Kind; target?: string };

const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, "0")}\0`;

const block = ({ path, mode, size, mtime, kind, target = "" }: Head): Buffer => {
  const header = Buffer.alloc(BLOCK);
  header.write(path.slice(0, 100), 0, "latin1");
  header.write(octal(mode, 8), 100, "latin1");
  header.write(octal(0, 8), 108, "latin1");
  header.write(octal(0, 8), 116, "latin1");
  header.write(octal(size, 12), 124, "latin1");
  header.write(octal(mtime, 12), 136, "latin1");
  header.write("        ", 148, "latin1");
  header.write(kind, 156, "latin1");
  header.write(target.slice(0, 100), 157, "latin1");
  header.write("ustar  \0", 257, "latin1");
  header.write(
    `${octal(
      header.reduce((sum, byte) => sum + byte, 0),
      7,
    )} `,
    148,
    "latin1",
  );
  return header;
};

const padding = (size: number): Buffer => Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);

/** Names over 100 bytes go before as an entry of their own. */
function* longName(kind: "L" | "K", name: string): Generator<Buffer> {
  if (name.length < 100) return;
  const data = Buffer.from(`${name}\0`, "latin1");
  yield block({ path: "././@LongLink", mode: 0o644, size: data.length, mtime: 0, kind });
  yield data;
  yield padding(data.length);
}

export function* header(head: Head): Generator<Buffer> {
  if (head.target !== undefined) yield* longName("K", head.target);
  yield* longName("L", head.path);
  yield block(head);
}

/** The end of an archive. */
export const endOfArchive = (): Buffer => Buffer.alloc(2 * BLOCK);

export function* smallFile(path: string, data: Uint8Array, mode: number, mtime: number): Generator<Uint8Array> {
  yield* header({ path, mode, size: data.length, mtime, kind: "0" });
  yield data;
  yield padding(data.length);
}

/** The place of a repository in another one, which git wants to be there. */
export const folder = (path: string, mtime: number): Generator<Uint8Array> =>
  header({ path: `${path}/`, mode: 0o755, size: 0, mtime, kind: "5" });

export async function* diskFile(path: string, file: string, mode: number, mtime: number): AsyncGenerator<Uint8Array> {
  const { size } = await stat(file);
  if (size >= 8 ** 11) throw new BangerError("WORKSPACE_REFUSED", `the history takes ${size} bytes, which is too much`);
  yield* header({ path, mode, size, mtime, kind: "0" });
  if (size > 0)
    yield* createReadStream(file, { end: size - 1, highWaterMark: 256 * 1024 }) as AsyncIterable<Uint8Array>;
  yield padding(size);
}

/**
 * Files of the working tree, read by the system's tar, with the end of the archive.
 * @param paths below `root`, one character a byte
 */
export async function* worktreeFiles(root: string, paths: readonly string[]): AsyncGenerator<Uint8Array> {
  const names = paths.map((path) => `./${path}`);
  try {
    yield* packTar({ folder: root, names, encoding: "latin1", listed: true, asRoot: true });
  } catch (error) {
    const { code, message } = toBangerError(error);
    if (code !== "TOOL_FAILED") throw error;
    const hint = "files that come and go meanwhile make this fail: run the command again";
    throw new BangerError(code, message, { hint, cause: error });
  }
}

/** Files of a commit, as git has them. */
export async function* committedFiles(
  state: State,
  entries: readonly Entry[],
  mtime: number,
): AsyncGenerator<Uint8Array> {
  const files = entries.filter(({ mode }) => mode !== "160000");
  await using git = await state.repository.git.start(["cat-file", "--batch", "--buffer"], state.env);
  const { stdin, stdout } = git.child;
  if (!stdin || !stdout) throw new BangerError("INTERNAL", "git was started without pipes");
  const fed = pipeline(Readable.from([files.map(({ oid }) => `${oid}\n`).join("")]), stdin).catch(() => undefined);
  const input = reader(stdout as AsyncIterable<Buffer>);
  for (const { path, mode, oid } of files) {
    const [, type, length = ""] = (await input.line()).split(" ");
    const size = Number(length);
    if (type !== "blob" || !Number.isSafeInteger(size))
      throw new BangerError("WORKSPACE_REFUSED", `the repository lacks the contents of ${path} (${oid})`, {
        hint: "see `git fsck`; a partial clone must fetch it first",
      });
    if (mode === "120000") {
      const target = (await whole(input.take(size))).toString("latin1");
      yield* header({ path, mode: 0o777, size: 0, mtime, kind: "2", target });
    } else {
      yield* header({ path, mode: mode === "100755" ? 0o755 : 0o644, size, mtime, kind: "0" });
      yield* input.take(size);
      yield padding(size);
    }
    for await (const _newline of input.take(1));
  }
  stdout.destroy();
  await fed;
}

/** Lines and counted bytes of a stream. */
const reader = (source: AsyncIterable<Buffer>) => {
  const chunks = source[Symbol.asyncIterator]();
  let rest: Buffer = Buffer.alloc(0);
  const more = async (): Promise<void> => {
    const { value, done } = await chunks.next();
    if (done) throw new BangerError("TOOL_FAILED", "git cat-file ended early");
    rest = rest.length === 0 ? value : Buffer.concat([rest, value]);
  };
  return {
    line: async (): Promise<string> => {
      while (!rest.includes(10)) await more();
      const end = rest.indexOf(10);
      const line = rest.subarray(0, end).toString("latin1");
      rest = rest.subarray(end + 1);
      return line;
    },
    async *take(size: number): AsyncGenerator<Buffer> {
      for (let left = size; left > 0; ) {
        if (rest.length === 0) await more();
        const part = rest.subarray(0, left);
        rest = rest.subarray(part.length);
        left -= part.length;
        yield part;
      }
    },
  };
};

const whole = async (source: AsyncIterable<Buffer>): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
};
