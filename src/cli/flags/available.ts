export const availableFlag = { kind: "switch", help: "what can be pulled" } as const;
