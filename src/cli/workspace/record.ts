/** What a guest has of a workspace, as it lies in the guest: one record of all, and one of what is on its way. */
import { randomBytes } from "node:crypto";
import { promisify } from "node:util";
import { gunzip, gzip } from "node:zlib";
import { BangerError } from "../../contract/errors.ts";
import { arrivingPath, type Manifest, manifestPath, parseArriving, parseManifest } from "../../workspace/manifest.ts";
import type { GuestFiles } from "../copy/guest-files.ts";

/** So many bytes a record may come to, which a guest may have written. */
const MOST = 256 * 1024 * 1024;

/** @returns undefined where banger has brought nothing, or nothing that it knows how to read */
export const readRecord = async (files: GuestFiles, name: string): Promise<Manifest | undefined> => {
  const packed = await dataAt(files, manifestPath(name));
  const record = parsed(packed && (await unpacked(packed)), parseManifest);
  const under = parsed(await dataAt(files, arrivingPath(name)), parseArriving);
  if (!under || under.replaces !== (record?.id ?? "")) return record;
  // The guest may have any part of the old and the new.
  const base = record ?? under.first;
  return base && { ...base, arriving: true, files: { ...base.files, ...under.files } };
};

/** Told before anything of it is sent. @param changed of its files */
export const writeArriving = async (
  files: GuestFiles,
  name: string,
  before: Manifest | undefined,
  manifest: Manifest,
  changed: readonly string[],
): Promise<void> => {
  const entries = Object.fromEntries(changed.map((path) => [path, manifest.files[path] ?? ""]));
  const record = {
    replaces: before?.id ?? "",
    files: before?.arriving ? { ...before.files, ...entries } : entries,
    ...(before?.id === undefined ? { first: { ...manifest, files: {} } } : {}),
  };
  await write(files, arrivingPath(name), Buffer.from(JSON.stringify(record)));
};

/** Told when all is there: what was said before of what is on its way does not count any more. */
export const writeRecord = async (files: GuestFiles, name: string, manifest: Manifest): Promise<void> => {
  const id = randomBytes(8).toString("hex");
  // An emulated guest takes longer to take bytes than this takes to make fewer of them.
  const data = await promisify(gzip)(JSON.stringify({ ...manifest, id, arriving: false }), { level: 1 });
  await write(files, manifestPath(name), data);
};

const write = (files: GuestFiles, path: string, data: Buffer): Promise<void> =>
  files.send({ op: "write", path, mode: 0o600, parents: true, size: data.length }, once(data));

async function* once(data: Uint8Array): AsyncGenerator<Uint8Array> {
  yield data;
}

const dataAt = async (files: GuestFiles, path: string): Promise<Buffer | undefined> => {
  if (!(await files.stat(path))) return undefined;
  const chunks: Buffer[] = [];
  let size = 0;
  await files.receive({ op: "read", path }, async (data) => {
    for await (const chunk of data) {
      size += (chunk as Buffer).length;
      if (size > MOST) throw new BangerError("GUEST_ERROR", `${path} in the guest has more than ${MOST} bytes`);
      chunks.push(chunk as Buffer);
    }
  });
  return Buffer.concat(chunks);
};

const unpacked = async (packed: Buffer): Promise<Buffer | undefined> => {
  try {
    return await promisify(gunzip)(packed, { maxOutputLength: MOST });
  } catch (error) {
    if (error instanceof RangeError || (error instanceof Error && "errno" in error)) return undefined;
    throw error;
  }
};

/** What is none of banger's counts as nothing. */
const parsed = <T>(data: Buffer | undefined, parse: (text: string) => T | undefined): T | undefined => {
  if (data === undefined) return undefined;
  try {
    return parse(data.toString("utf8"));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return undefined;
  }
};
