/** Writer of newc cpio archives, the format of an initramfs (Documentation/driver-api/early-userspace/buffer-format.rst). */

export type CpioEntry = {
  /** Without a leading slash. */
  path: string;
  /** Type and permission bits, as in stat(2). */
  mode: number;
  data?: Uint8Array;
};

export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;

const pad = (length: number): number => (4 - (length % 4)) % 4;

/** The archive of `entries`, owned by root, with no times: the same entries give the same bytes. */
export const writeCpio = (entries: readonly CpioEntry[]): Buffer => {
  const parts = entries.flatMap((entry, index) => entryParts(entry, index + 1));
  return Buffer.concat([...parts, ...entryParts({ path: "TRAILER!!!", mode: 0 }, 0)]);
};

const entryParts = (entry: CpioEntry, inode: number): Buffer[] => {
  const data = entry.data ?? new Uint8Array();
  const name = Buffer.from(`${entry.path}\0`);
  const links = (entry.mode & S_IFDIR) !== 0 ? 2 : 1;
  // inode, mode, uid, gid, links, mtime, size, device major and minor, rdev major and minor, name size, checksum
  const fields = [inode, entry.mode, 0, 0, links, 0, data.length, 0, 0, 0, 0, name.length, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
  return [
    Buffer.from(header),
    name,
    Buffer.alloc(pad(header.length + name.length)),
    Buffer.from(data.buffer, data.byteOffset, data.byteLength),
    Buffer.alloc(pad(data.length)),
  ];
};
