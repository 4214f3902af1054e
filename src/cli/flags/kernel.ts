import { text } from "./values.ts";

export const kernelFlag = {
  kind: "value",
  placeholder: "KERNEL",
  help: "kernel to boot (`banger kernel list`)",
  parse: text,
} as const;
