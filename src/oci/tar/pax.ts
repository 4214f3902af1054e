/** PAX extended headers: records of `LENGTH KEY=VALUE\n`. Keys and values stay bytes, as latin1 strings. */
import { TarError } from "./error.ts";

/** What PAX headers say of an entry; absent where they are silent. */
export type Pax = {
  path?: string;
  linkpath?: string;
  size?: number;
  uid?: number;
  gid?: number;
  mtime?: Time;
  xattrs?: Map<string, Uint8Array>;
  sparse?: PaxSparse;
};

export type Time = {
  /** Since 1970. */
  seconds: number;
  nanoseconds: number;
};

export type PaxSparse = {
  /** `1.0` keeps the map before the data, the earlier ones keep it here. */
  version?: "1.0";
  realSize?: number;
  name?: string;
  /** Offsets and lengths in turn. */
  numbers: number[];
};

/** An empty value takes back what an earlier header said. */
type Setter = (pax: Pax, value: string, key: string) => void;

const setters: Record<string, Setter> = {
  path: (pax, value) => set(pax, "path", value === "" ? undefined : text(value, "path")),
  linkpath: (pax, value) => set(pax, "linkpath", value === "" ? undefined : text(value, "linkpath")),
  size: (pax, value) => set(pax, "size", value === "" ? undefined : count(value, "size")),
  uid: (pax, value) => set(pax, "uid", value === "" ? undefined : count(value, "uid")),
  gid: (pax, value) => set(pax, "gid", value === "" ? undefined : count(value, "gid")),
  mtime: (pax, value) => set(pax, "mtime", value === "" ? undefined : time(value)),
  "GNU.sparse.major": (pax, value) => {
    if (value === "1") sparse(pax).version = "1.0";
    else if (value !== "0") throw new TarError("refused", `sparse files of version ${value} are not known`);
  },
  "GNU.sparse.minor": (_pax, value) => {
    if (!/^[01]$/.test(value)) throw new TarError("refused", `sparse files of minor version ${value} are not known`);
  },
  "GNU.sparse.numblocks": (pax, value) => {
    count(value, "number of sparse parts");
    sparse(pax);
  },
  "GNU.sparse.name": (pax, value) => {
    sparse(pax).name = text(value, "path");
  },
  "GNU.sparse.realsize": (pax, value) => {
    sparse(pax).realSize = count(value, "size");
  },
  "GNU.sparse.size": (pax, value) => {
    sparse(pax).realSize = count(value, "size");
  },
  "GNU.sparse.offset": (pax, value) => void sparse(pax).numbers.push(count(value, "sparse map")),
  "GNU.sparse.numbytes": (pax, value) => void sparse(pax).numbers.push(count(value, "sparse map")),
  "GNU.sparse.map": (pax, value) => {
    sparse(pax).numbers = value === "" ? [] : value.split(",").map((one) => count(one, "sparse map"));
  },
};

const set = <K extends keyof Pax>(pax: Pax, key: K, value: Pax[K] | undefined): void => {
  if (value === undefined) delete pax[key];
  else pax[key] = value;
};

const sparse = (pax: Pax): PaxSparse => {
  pax.sparse ??= { numbers: [] };
  return pax.sparse;
};

const XATTR = "SCHILY.xattr.";
const XATTR_BASE64 = "LIBARCHIVE.xattr.";

/**
 * @param into what earlier headers said of the same entry
 * @throws TarError when a record is damaged or says what cannot be
 */
export const parsePax = (data: Buffer, into: Pax): Pax => {
  let at = 0;
  while (at < data.length) {
    const space = data.indexOf(0x20, at);
    const digits = space < 0 || space - at > 10 ? "" : data.toString("latin1", at, space);
    const length = /^[1-9]\d*$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    const equals = data.indexOf(0x3d, space);
    if (length === 0 || end > data.length || data[end - 1] !== 0x0a || equals < 0 || equals >= end) {
      // Some programs fill up with NULs.
      if (data.subarray(at).every((byte) => byte === 0)) return into;
      throw new TarError("corrupt", "a PAX header cannot be read");
    }
    setRecord(into, data.toString("latin1", space + 1, equals), data.subarray(equals + 1, end - 1));
    at = end;
  }
  return into;
};

const setRecord = (pax: Pax, key: string, value: Buffer): void => {
  const setter = Object.hasOwn(setters, key) ? setters[key] : undefined;
  if (setter) setter(pax, value.toString("latin1"), key);
  else if (key.startsWith(XATTR)) setXattr(pax, key.slice(XATTR.length), Uint8Array.from(value));
  else if (key.startsWith(XATTR_BASE64)) {
    const name = Buffer.from(decodeURIComponentBytes(key.slice(XATTR_BASE64.length)), "latin1").toString("latin1");
    if (!pax.xattrs?.has(name)) setXattr(pax, name, Uint8Array.from(Buffer.from(value.toString("latin1"), "base64")));
  }
};

/** libarchive writes unusual bytes of a name as %XX. */
const decodeURIComponentBytes = (name: string): string =>
  name.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));

const setXattr = (pax: Pax, name: string, value: Uint8Array): void => {
  if (name === "" || name.includes("\0")) throw new TarError("refused", "an extended attribute has no valid name");
  pax.xattrs ??= new Map();
  pax.xattrs.set(name, value);
};

const text = (value: string, what: string): string => {
  if (value.includes("\0")) throw new TarError("refused", `its PAX ${what} holds a NUL byte`);
  return value;
};

const count = (value: string, what: string): number => {
  const result = /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (Number.isSafeInteger(result)) return result;
  throw new TarError("corrupt", `its PAX ${what} is no number`);
};

/** `-1.25` is 2 seconds before 1970 and 750,000,000 nanoseconds after that. */
const time = (value: string): Time => {
  const match = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(value);
  if (!match) throw new TarError("corrupt", "its PAX mtime is no time");
  const [, sign, whole = "", fraction = ""] = match;
  const nanoseconds = Number(fraction.slice(0, 9).padEnd(9, "0"));
  if (sign !== "-") return { seconds: Number(whole), nanoseconds };
  if (nanoseconds === 0) return { seconds: 0 - Number(whole), nanoseconds: 0 };
  return { seconds: -Number(whole) - 1, nanoseconds: 1e9 - nanoseconds };
};
