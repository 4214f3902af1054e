export const overcommitFlag = {
  kind: "switch",
  help: "also where this machine has hardly enough memory or disk",
} as const;
