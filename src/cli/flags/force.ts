export const forceFlag = { kind: "switch", short: "f", help: "do not ask" } as const;
