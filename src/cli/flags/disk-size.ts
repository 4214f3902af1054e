import { parseSize } from "../../contract/names.ts";

export const diskSizeFlag = {
  kind: "value",
  placeholder: "SIZE",
  help: "size of its disk, of which only what is used is taken: 8G",
  parse: (value: string) => parseSize(value, "disk size"),
} as const;
