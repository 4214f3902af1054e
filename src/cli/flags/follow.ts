export const followFlag = { kind: "switch", short: "f", help: "go on printing what comes" } as const;
