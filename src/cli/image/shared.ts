import type { Argument } from "../command.ts";

export const imageArgument: Argument = { name: "IMAGE", help: "a name of `banger image list`" };
