/** Takes a merged root file system and keeps it in memory, to be compared. */
import assert from "node:assert/strict";
import type { RootfsAttributes, RootfsSink } from "../../src/oci/layers/sink.ts";

export type Recorded = {
  type: "directory" | "file" | "symlink" | "char" | "block" | "fifo" | "socket";
  attributes: RootfsAttributes | undefined;
  data?: Buffer;
  target?: string;
  device?: { major: number; minor: number } | undefined;
};

export type Recording = {
  sink: RootfsSink /** By path, links resolved. */;
  entries(): Map<string, Recorded> /** Files and bytes that were written. */;
  written: { files: number; bytes: number; holes: number };
};

export const recordingSink = (): Recording => {
  const entries = new Map<string, Recorded>();
  const links = new Map<string, string>();
  const written = { files: 0, bytes: 0, holes: 0 };
  const parents = (path: string) => {
    const parts = path.split("/").slice(0, -1);
    for (let i = 1; i <= parts.length; i++) {
      const parent = parts.slice(0, i).join("/");
      if (!entries.has(parent)) entries.set(parent, { type: "directory", attributes: undefined });
      assert.equal(entries.get(parent)?.type, "directory", `${path} lies in what is no folder`);
      assert.ok(!links.has(parent), `${path} lies in a link`);
    }
  };
  const add = (path: string, recorded: Recorded) => {
    parents(path);
    assert.ok(!entries.has(path) && !links.has(path), `${path} is written twice`);
    entries.set(path, recorded);
  };
  const sink: RootfsSink = {
    directory: (path, attributes) => {
      parents(path);
      assert.ok(!links.has(path), `${path} is a link already`);
      assert.ok((entries.get(path)?.type ?? "directory") === "directory", `${path} is no folder`);
      entries.set(path, { type: "directory", attributes });
    },
    file: async (path, attributes, size) => {
      const recorded: Recorded & { data: Buffer } = { type: "file", attributes, data: Buffer.alloc(size) };
      add(path, recorded);
      written.files++;
      let at = 0;
      return {
        write: (chunk) => {
          recorded.data.set(chunk, at);
          at += chunk.length;
          written.bytes += chunk.length;
          return undefined;
        },
        hole: (bytes) => {
          at += bytes;
          written.holes += bytes;
          return undefined;
        },
        end: async () => assert.equal(at, size, path),
      };
    },
    symlink: (path, attributes, target) => add(path, { type: "symlink", attributes, target }),
    link: (path, target) => {
      parents(path);
      assert.ok(!entries.has(path) && !links.has(path), `${path} is written twice`);
      links.set(path, target);
    },
    special: (path, attributes, type, device) => add(path, { type, attributes, device }),
  };
  const resolved = () => {
    const all = new Map(entries);
    for (const [path, first] of links) {
      let target = first;
      while (links.has(target)) target = links.get(target) ?? "";
      const found = entries.get(target);
      assert.ok(found && found.type !== "directory", `${path} links to ${target}`);
      all.set(path, found);
    }
    return all;
  };
  return { sink, entries: resolved, written };
};
