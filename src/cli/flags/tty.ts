export const ttyFlag = {
  kind: "switch",
  short: "t",
  help: "give the command a terminal (a shell has one by itself)",
} as const;
