/** What e2fsprogs says of an ext4 image: the judge of our writer. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const options = {
  encoding: "latin1",
  maxBuffer: 1 << 30,
  env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`, TZ: "UTC" },
} as const;

/** Fails unless a full check finds nothing at all, not even something that could be better. */
export const assertClean = async (image: string): Promise<void> => {
  const { stdout } = await run("e2fsck", ["-fn", image], options).catch((error: { stdout: string }) => ({
    stdout: error.stdout,
  }));
  const remarks = stdout.split("\n").filter((line) => line !== "" && !/^Pass [1-5]|^.*: \d+\/\d+ files/.test(line));
  assert.deepEqual(remarks, [], stdout.slice(0, 4000));
  assert.match(stdout, /\d+\/\d+ files/);
};

/** Output of debugfs for each command, without the echo of the command. */
export const debugfs = async (image: string, folder: string, commands: string[]): Promise<string[]> => {
  const script = join(folder, "debugfs.commands");
  await writeFile(script, commands.map((command) => `${command}\n`).join(""), "latin1");
  const { stdout } = await run("debugfs", ["-f", script, image], options);
  return stdout.split(/^debugfs: .*\n/m).slice(1);
};

/** Content of a file within an ext4 file system. */
export const catInImage = async (image: string, path: string): Promise<string> =>
  (await run("debugfs", ["-R", `cat "${path}"`, image], options)).stdout;

/** What debugfs says of a file: type, mode, owner, extended attributes. */
export const statInImage = async (image: string, path: string): Promise<string> =>
  (await run("debugfs", ["-R", `stat "${path}"`, image], options)).stdout;

/** Names in a folder, one line each, as `ls -p` of debugfs prints them. */
export const listInImage = async (image: string, path: string): Promise<string> =>
  (await run("debugfs", ["-R", `ls -p ${path}`, image], options)).stdout;

export type Listed = { path: string; inode: number; mode: number };

/** Every entry but "." and "..", by name within folders as they are read. Names must not hold a newline. */
export const listTree = async (image: string, folder: string): Promise<Listed[]> => {
  const found: Listed[] = [];
  let folders: Listed[] = [{ path: "", inode: 2, mode: 0o40755 }];
  while (folders.length > 0) {
    const listings = await debugfs(
      image,
      folder,
      folders.map(({ inode }) => `ls -p <${inode}>`),
    );
    const below = listings.flatMap((text, index) =>
      [...text.matchAll(/^\/(\d+)\/([0-7]+)\/-?\d+\/-?\d+\/(.+?)\/\d*\/$/gm)]
        .map(([, inode, mode, name]) => ({
          path: folders[index]?.path ? `${folders[index]?.path}/${name}` : `${name}`,
          inode: Number(inode),
          mode: Number.parseInt(mode ?? "", 8),
        }))
        .filter(({ path }) => !/(^|\/)\.\.?$/.test(path)),
    );
    found.push(...below);
    folders = below.filter(({ mode }) => (mode & 0o170000) === 0o40000);
  }
  return found;
};

export type Stat = {
  type: string;
  mode: number;
  uid: number;
  gid: number;
  links: number;
  size: number;
  /** Of 512 bytes. */
  sectors: number;
  /** In four hexadecimal numbers. */
  times: string[];
  device: string | undefined;
  target: string | undefined;
};

export const statInodes = async (image: string, folder: string, inodes: number[]): Promise<Stat[]> => {
  const outputs = await debugfs(
    image,
    folder,
    inodes.map((inode) => `stat <${inode}>`),
  );
  return outputs.map((text) => {
    const number = (pattern: RegExp, radix = 10) => Number.parseInt(pattern.exec(text)?.[1] ?? "", radix);
    return {
      type: /Type: (.+?) {2,}Mode/.exec(text)?.[1] ?? "",
      mode: number(/Mode: +([0-7]+)/, 8),
      uid: number(/User: +(-?\d+)/),
      gid: number(/Group: +(-?\d+)/),
      links: number(/Links: (\d+)/),
      size: number(/ Size: (\d+)/),
      sectors: number(/Blockcount: (\d+)/),
      times: [...text.matchAll(/^ ?(?:c|a|m|cr)time: (0x[0-9a-f]+:[0-9a-f]+)/gm)].map(([, time]) => time ?? ""),
      device: /Device major\/minor number: (\d+:\d+)/.exec(text)?.[1],
      target: /Fast link dest: "(.*)"/.exec(text)?.[1],
    };
  });
};

/** Content of files and of long symlinks. */
export const readInodes = async (image: string, folder: string, inodes: number[]): Promise<Buffer[]> => {
  const paths = inodes.map((inode) => join(folder, `content-${inode}`));
  await debugfs(
    image,
    folder,
    inodes.map((inode, index) => `dump <${inode}> ${paths[index]}`),
  );
  const contents: Buffer[] = [];
  for (const path of paths) contents.push(await readFile(path));
  return contents;
};

/** Extended attributes of inodes, values in hex. */
export const xattrsOf = async (image: string, folder: string, inodes: number[]): Promise<Map<string, string>[]> => {
  const lists = await debugfs(
    image,
    folder,
    inodes.map((inode) => `ea_list <${inode}>`),
  );
  const names = lists.flatMap((list, index) =>
    [...list.matchAll(/^ {2}(\S+) \(\d+\)/gm)].map(([, name]) => ({ index, name: name ?? "" })),
  );
  const values = await debugfs(
    image,
    folder,
    names.map(({ index, name }) => `ea_get -x <${inodes[index]}> ${name}`),
  );
  const found = inodes.map(() => new Map<string, string>());
  for (const [at, { index, name }] of names.entries())
    found[index]?.set(name, (values[at] ?? "").replace(/^.*\(\d+\) ?=?|\s/g, ""));
  return found;
};
