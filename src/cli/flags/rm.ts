export const rmFlag = { kind: "switch", help: "delete the VM at the end, whatever the end is" } as const;
