export const watchFlag = { kind: "switch", help: "go on, and show what changes, until Ctrl-C" } as const;
