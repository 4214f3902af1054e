export const nestedFlag = {
  kind: "switch",
  help: "let its guest run VMs with KVM (SVM or VMX of the CPU)",
} as const;
