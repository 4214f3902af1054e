export const quietFlag = { kind: "switch", short: "q", help: "names only" } as const;
