import type { Argument } from "../command.ts";

export const kernelArgument: Argument = { name: "KERNEL", help: "a name of `banger kernel list`" };
