import type { Argument } from "../command.ts";

export const snapshotArgument: Argument = { name: "SNAPSHOT", help: "a name of `banger snapshot list`" };

/** How the files of exports end. */
export const ARCHIVE = ".snapshot.tar.zst";
