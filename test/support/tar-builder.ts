/** Makes tar archives byte by byte, those that no program would make too. Names are bytes as latin1. */

export type Made = {
  name: string;
  /** The type flag; default a file. */
  type?: string;
  link?: string;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  data?: Uint8Array | string;
  /** In place of the data's length. */
  size?: number;
  major?: number;
  minor?: number;
  /** Records of a PAX header that comes before; a list keeps equal keys apart. */
  pax?: Record<string, string | Uint8Array> | [string, string][];
  /** `ustar\0` + `00` by default. */
  magic?: string;
  prefix?: string;
  /** The last word on the header's bytes, before its checksum. */
  patch?: (header: Buffer) => void;
};

const BLOCK = 512;

const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, "0")}\0`;

/** Octal where it fits, else base 256. */
const putNumber = (header: Buffer, at: number, width: number, value: number): void => {
  if (value >= 0 && value < 8 ** (width - 1)) {
    header.write(octal(value, width), at, "latin1");
    return;
  }
  let rest = BigInt.asUintN((width - 1) * 8, BigInt(value));
  for (let i = at + width - 1; i > at; i--) {
    header[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  header[at] = value < 0 ? 0xff : 0x80;
};

export const header = (made: Made): Buffer => {
  const block = Buffer.alloc(BLOCK);
  const bytes = typeof made.data === "string" ? Buffer.byteLength(made.data, "latin1") : (made.data?.length ?? 0);
  block.write(made.name.slice(0, 100), 0, "latin1");
  putNumber(block, 100, 8, made.mode ?? (made.type === "5" ? 0o755 : 0o644));
  putNumber(block, 108, 8, made.uid ?? 0);
  putNumber(block, 116, 8, made.gid ?? 0);
  putNumber(block, 124, 12, made.size ?? bytes);
  putNumber(block, 136, 12, made.mtime ?? 1_700_000_000);
  block.write(made.type ?? "0", 156, "latin1");
  block.write((made.link ?? "").slice(0, 100), 157, "latin1");
  block.write(made.magic ?? "ustar\x0000", 257, "latin1");
  putNumber(block, 329, 8, made.major ?? 0);
  putNumber(block, 337, 8, made.minor ?? 0);
  block.write(made.prefix ?? "", 345, "latin1");
  made.patch?.(block);
  return sealed(block);
};

/** Sets the checksum. */
export const sealed = (block: Buffer): Buffer => {
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
};

const padded = (data: Buffer): Buffer => Buffer.concat([data, Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK)]);

export const paxRecords = (records: NonNullable<Made["pax"]>): Buffer =>
  Buffer.concat(
    (Array.isArray(records) ? records : Object.entries(records)).map(([key, value]) => {
      const body = Buffer.concat([
        Buffer.from(` ${key}=`, "latin1"),
        typeof value === "string" ? Buffer.from(value, "latin1") : value,
        Buffer.from("\n"),
      ]);
      let length = body.length + 1;
      while (String(length).length + body.length !== length) length = String(length).length + body.length;
      return Buffer.concat([Buffer.from(String(length)), body]);
    }),
  );

export const entry = (made: Made): Buffer => {
  const parts: Buffer[] = [];
  if (made.pax) {
    const records = paxRecords(made.pax);
    parts.push(header({ name: "PaxHeaders/x", type: "x", data: records }), padded(records));
  }
  const { name, link = "" } = made;
  const long = (type: string, text: string) => {
    const data = Buffer.from(`${text}\0`, "latin1");
    parts.push(header({ name: "././@LongLink", type, data, magic: "ustar  \0" }), padded(data));
  };
  if (!made.pax && name.length > 100) long("L", name);
  if (!made.pax && link.length > 100) long("K", link);
  parts.push(header(made));
  if (made.data !== undefined)
    parts.push(padded(typeof made.data === "string" ? Buffer.from(made.data, "latin1") : Buffer.from(made.data)));
  return Buffer.concat(parts);
};

export const END = Buffer.alloc(2 * BLOCK);

/** A whole archive. Raw bytes are put in as they are. */
export const tar = (entries: readonly (Made | Buffer)[]): Buffer =>
  Buffer.concat([...entries.map((one) => (Buffer.isBuffer(one) ? one : entry(one))), END]);
