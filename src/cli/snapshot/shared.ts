import type { Argument } from "../command.ts";

export const snapshotArgument: Argument = { name: "SNAPSHOT", help: "a name of `banger snapshot list`" };
