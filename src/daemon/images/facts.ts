/** Notes, while a root file system is written, what must be known of it later: does it bring an init? */
import { posix } from "node:path";
import type { RootfsSink } from "../../oci/layers/sink.ts";

export type RootfsFacts = {
  sink: RootfsSink;
  /** Where a path leads in the image, symlinks followed; undefined where nothing of note is. */
  resolve(path: string): string | undefined;
  hasFolder(path: string): boolean;
};

/** Names of files that matter, wherever they lie. */
const NOTEWORTHY = /(?:^|\/)(?:init|systemd|openrc|busybox)$/;
/** Symlinks further down lead to nothing that matters. */
const MOST_DEPTH = 4;
const MOST_SYMLINKS = 40;

export const rootfsFacts = (sink: RootfsSink): RootfsFacts => {
  const symlinks = new Map<string, string>();
  const files = new Set<string>();
  const folders = new Set<string>();
  const note = (path: string) => {
    if (NOTEWORTHY.test(path)) files.add(path);
  };
  const isNear = (path: string) => path.split("/", MOST_DEPTH + 1).length <= MOST_DEPTH;

  const follow = (path: string): string | undefined => {
    let todo = path.split("/").filter(Boolean);
    let done: string[] = [];
    let followed = 0;
    while (todo.length > 0) {
      const [part = "", ...rest] = todo;
      todo = rest;
      if (part === "..") {
        done.pop();
        continue;
      }
      const here = [...done, part];
      const target = symlinks.get(here.join("/"));
      if (target === undefined) {
        done = here;
        continue;
      }
      if (++followed > MOST_SYMLINKS) return undefined;
      if (target.startsWith("/")) done = [];
      todo = [...target.split("/").filter((one) => one !== "" && one !== "."), ...todo];
    }
    return done.join("/");
  };

  return {
    resolve: (path) => {
      const found = follow(path);
      return found !== undefined && files.has(found) ? `/${found}` : undefined;
    },
    hasFolder: (path) => folders.has(follow(posix.normalize(path)) ?? ""),
    sink: {
      directory: (path, attributes) => {
        if (isNear(path)) folders.add(path);
        sink.directory(path, attributes);
      },
      file: (path, attributes, size) => {
        note(path);
        return sink.file(path, attributes, size);
      },
      symlink: (path, attributes, target) => {
        if (isNear(path)) symlinks.set(path, target);
        sink.symlink(path, attributes, target);
      },
      link: (path, target) => {
        note(path);
        sink.link(path, target);
      },
      special: sink.special,
    },
  };
};
