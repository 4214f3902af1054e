/** What a merged root file system is written into: the ext4 writer, or what tests record it with. */
import type { Ext4Writer } from "../../ext4/writer.ts";

export type RootfsSink = Pick<Ext4Writer, "directory" | "file" | "symlink" | "link" | "special">;
export type RootfsAttributes = Parameters<RootfsSink["directory"]>[1];
