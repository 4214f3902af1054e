export const detachFlag = { kind: "switch", short: "d", help: "leave it running and print its name" } as const;
