import { parseSize } from "../../contract/names.ts";

export const memoryFlag = {
  kind: "value",
  placeholder: "SIZE",
  help: "memory: 512M, 4G, 4GiB",
  parse: (value: string) => parseSize(value, "memory size"),
} as const;
