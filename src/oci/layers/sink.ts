/** What a merged root file system is written into: the ext4 writer's shape, and what tests record. Names are bytes as latin1, relative to the root. */
import type { Time } from "../tar/pax.ts";

export type RootfsAttributes = {
  /** Permission bits, setuid, setgid and sticky included. */
  mode: number;
  uid: number;
  gid: number;
  mtime: Time;
  xattrs?: ReadonlyMap<string, Uint8Array>;
};

export type RootfsFile = {
  write(chunk: Uint8Array): Promise<void> | void;
  hole(bytes: number): Promise<void> | void;
  end(): Promise<void> | void;
};

export type RootfsSink = {
  /** May come after its children, and again: the last one counts. Parents that are missing are made, 0755 and root's. */
  directory(path: string, attributes: RootfsAttributes): void;
  file(path: string, attributes: RootfsAttributes, size: number): Promise<RootfsFile>;
  symlink(path: string, attributes: RootfsAttributes, target: string): void;
  /** Another name; what it is a name of may come later. */
  link(path: string, target: string): void;
  special(
    path: string,
    attributes: RootfsAttributes,
    type: "char" | "block" | "fifo" | "socket",
    device?: { major: number; minor: number },
  ): void;
};
