import { text } from "./values.ts";

export const modulesFlag = {
  kind: "value",
  placeholder: "DIR",
  help: "the kernel's modules: .../lib/modules/RELEASE, or a folder above it",
  parse: text,
} as const;
