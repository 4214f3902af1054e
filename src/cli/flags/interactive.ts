export const interactiveFlag = {
  kind: "switch",
  short: "i",
  help: "send what is typed; a pipe or file on stdin is always sent",
} as const;
