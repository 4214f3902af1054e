/**
 * Reads a tar archive as a stream: V7, ustar, GNU (long names, sparse, base 256) and PAX. Our own, because layers have names of any
 * bytes, sparse files of four formats, and hundreds of thousands of small entries in which a general library spends its time.
 */
import { type ByteReader, byteReader, type Chunks } from "./bytes.ts";
import { TarError } from "./error.ts";
import { BLOCK, parseHeader, type RawHeader } from "./header.ts";
import { type Pax, parsePax, type Time } from "./pax.ts";
import { checkParts, type Part, readOldSparse, readPaxSparse, type SparseMap } from "./sparse.ts";

export type EntryType = "file" | "directory" | "symlink" | "hardlink" | "char" | "block" | "fifo";

export type TarEntry = {
  type: EntryType;
  /** Number of the entry in its archive, from 0. */
  ordinal: number;
  /** Bytes as latin1, as they are in the archive. */
  name: string;
  /** Target of a link, the same. */
  link: string;
  /** Permission bits, setuid, setgid and sticky included. */
  mode: number;
  uid: number;
  gid: number;
  mtime: Time;
  /** Of the file in bytes, its holes included. */
  size: number;
  device: { major: number; minor: number } | undefined;
  xattrs: ReadonlyMap<string, Uint8Array> | undefined;
  /** Offset of the data in the archive. */
  dataAt: number;
  /** Undefined: all of it is data. */
  parts: readonly Part[] | undefined;
  /** Gives the file's content in order, once. What is not read is skipped. Chunks are valid until the next one is asked for. */
  content(sink: ContentSink): Promise<void>;
};

export type ContentSink = {
  write(chunk: Buffer): Promise<void> | void;
  hole(bytes: number): Promise<void> | void;
};

/** Most bytes of a PAX header or a long name: as much as Docker's reader takes. */
const MOST_EXTENDED = 1024 * 1024;
/** 32 bits, less the value that means "leave it". */
const MOST_ID = 2 ** 32 - 2;

const types: Record<string, EntryType> = {
  "0": "file",
  "\0": "file",
  "7": "file",
  S: "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "char",
  "4": "block",
  "5": "directory",
  D: "directory",
  "6": "fifo",
};

/**
 * @throws TarError, its message about the entry that `position` of it names
 */
export async function* readTar(chunks: Chunks): AsyncGenerator<TarEntry, void, void> {
  const reader = byteReader(chunks);
  try {
    yield* entriesOf(reader);
  } finally {
    await reader.close();
  }
}

async function* entriesOf(reader: ByteReader): AsyncGenerator<TarEntry, void, void> {
  const global: Pax = {};
  let ordinal = 0;
  let position = 0;
  for (;;) {
    const found = await nextHeader(reader, global, position);
    position = found.position;
    if (!found.header) break;
    const { header, pax } = found;
    const type = types[header.type];
    // A volume's label and GNU's old lists of names are no files.
    if (type === undefined && header.type !== "V")
      throw new TarError(
        "refused",
        `${describe(header.name)}: entries of type ${JSON.stringify(header.type)} are not known`,
      );
    const isFile = type === "file" && !(header.type === "\0" && header.name.endsWith("/"));
    const stored = isFile ? (pax.size ?? header.size) : 0;
    if (stored < 0) throw new TarError("corrupt", `${describe(header.name)}: a size below zero`);
    const entry = await entryOf(reader, found, type ?? "file", isFile, stored, ordinal);
    position += entry.mapRead;
    let left = stored - Math.max(0, entry.storedMap);
    const padding = (BLOCK - (stored % BLOCK)) % BLOCK;
    if (type !== undefined) {
      ordinal++;
      entry.value.dataAt = position;
      entry.value.content = async (sink) => {
        await copyContent(reader, entry.value, left, sink);
        left = 0;
      };
      yield entry.value;
    }
    await reader.skip(left + padding);
    position += stored - Math.max(0, entry.storedMap) + padding;
  }
  // The rest of the stream, so that its own checksum is looked at.
  while (await reader.more()) reader.take(reader.available());
}

type Found = { header: RawHeader | undefined; block: Buffer; pax: Pax; position: number };

/** The next header that is an entry's own, and what the ones before it say of it. */
const nextHeader = async (
  reader: ByteReader,
  global: Pax,
  start: number,
): Promise<Found & { header: RawHeader | undefined }> => {
  let position = start;
  const pax: Pax = { ...global, ...(global.xattrs ? { xattrs: new Map(global.xattrs) } : {}) };
  let longName: string | undefined;
  let longLink: string | undefined;
  let pending = false;
  for (;;) {
    if (reader.available() < BLOCK && !(await reader.need(BLOCK))) {
      if (pending) throw new TarError("corrupt", "the archive ends after an extended header");
      // Without the two blocks of zeros: archives of some programs end so.
      return { header: undefined, block: Buffer.alloc(0), pax, position };
    }
    const block = reader.take(BLOCK);
    const header = parseHeader(block);
    position += BLOCK;
    if (!header) {
      if (pending) throw new TarError("corrupt", "the archive ends after an extended header");
      return { header: undefined, block, pax, position };
    }
    if (!"xgXLKN".includes(header.type) || header.type === "\0") {
      if (longName !== undefined) pax.path = longName;
      if (longLink !== undefined) pax.linkpath = longLink;
      // The header block is looked at again for a sparse map, after waits.
      return { header, block: header.type === "S" ? Buffer.from(block) : block, pax, position };
    }
    const data = await extended(reader, header);
    position += header.size + ((BLOCK - (header.size % BLOCK)) % BLOCK);
    pending = header.type !== "g";
    if (header.type === "g") Object.assign(pax, parsePax(data, global));
    else if (header.type === "x" || header.type === "X") parsePax(data, pax);
    else if (header.type === "L") longName = untilNul(data);
    else if (header.type === "K") longLink = untilNul(data);
    else throw new TarError("refused", `${describe(header.name)}: GNU's oldest long names are not known`);
  }
};

const extended = async (reader: ByteReader, { size, name }: RawHeader): Promise<Buffer> => {
  if (size < 0 || size > MOST_EXTENDED)
    throw new TarError(
      "refused",
      `${describe(name)}: an extended header of ${size} bytes, and ${MOST_EXTENDED} are the most`,
    );
  const whole = size + ((BLOCK - (size % BLOCK)) % BLOCK);
  if (whole > 0 && reader.available() < whole && !(await reader.need(whole)))
    throw new TarError("corrupt", "the archive ends in an extended header");
  return reader.take(whole).subarray(0, size);
};

const untilNul = (data: Buffer): string => {
  const end = data.indexOf(0);
  return data.toString("latin1", 0, end < 0 ? data.length : end);
};

type Built = {
  value: TarEntry;
  /** Bytes that a sparse map took of the archive. */
  mapRead: number;
  /** Those of them that are counted in the entry's size. */
  storedMap: number;
};

const entryOf = async (
  reader: ByteReader,
  { header, block, pax }: Found,
  type: EntryType,
  isFile: boolean,
  stored: number,
  ordinal: number,
): Promise<Built> => {
  if (!header) throw new TarError("corrupt", "no header");
  const name = pax.sparse?.name ?? pax.path ?? header.name;
  try {
    let sparse: SparseMap | undefined;
    if (isFile && header.type === "S") sparse = await readOldSparse(block, reader);
    else if (isFile && pax.sparse) sparse = await readPaxSparse(pax.sparse, stored, reader);
    if (sparse) checkParts(sparse.parts, sparse.realSize, stored - Math.max(0, sparse.read));
    const read = sparse?.read ?? 0;
    return {
      value: {
        type: type === "file" && !isFile ? "directory" : type,
        ordinal,
        name,
        link: pax.linkpath ?? header.link,
        mode: header.mode,
        uid: identity(pax.uid ?? header.uid),
        gid: identity(pax.gid ?? header.gid),
        mtime: pax.mtime ?? { seconds: header.mtime, nanoseconds: 0 },
        size: sparse?.realSize ?? stored,
        device: type === "char" || type === "block" ? { major: header.major, minor: header.minor } : undefined,
        xattrs: pax.xattrs,
        dataAt: 0,
        parts: sparse?.parts,
        content: () => Promise.resolve(),
      },
      mapRead: Math.abs(read),
      storedMap: read,
    };
  } catch (error) {
    if (error instanceof TarError) throw new TarError(error.kind, `${describe(name)}: ${error.message}`);
    throw error;
  }
};

const identity = (id: number): number => {
  if (id >= 0 && id <= MOST_ID) return id;
  throw new TarError("refused", `the user or group ${id} is out of range`);
};

const copyContent = async (reader: ByteReader, entry: TarEntry, stored: number, sink: ContentSink): Promise<void> => {
  const copy = async (length: number) => {
    let left = length;
    while (left > 0) {
      if (reader.available() === 0 && !(await reader.more()))
        throw new TarError("corrupt", `${describe(entry.name)}: the archive ends in its data`);
      const chunk = reader.take(Math.min(left, reader.available()));
      left -= chunk.length;
      const wait = sink.write(chunk);
      if (wait) await wait;
    }
  };
  if (!entry.parts) return await copy(stored);
  let at = 0;
  for (const { offset, length } of entry.parts) {
    if (offset > at) await sink.hole(offset - at);
    await copy(length);
    at = offset + length;
  }
  if (entry.size > at) await sink.hole(entry.size - at);
};

/** A name of any bytes for a message: what is no text is escaped. */
export const describe = (name: string): string => {
  const decoded = Buffer.from(name, "latin1").toString("utf8");
  return JSON.stringify(decoded.length > 200 ? `${decoded.slice(0, 200)}…` : decoded);
};
