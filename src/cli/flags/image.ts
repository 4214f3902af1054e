import { text } from "./values.ts";

export const imageFlag = {
  kind: "value",
  placeholder: "IMAGE",
  help: "image to start from (`banger image list`)",
  parse: text,
} as const;
