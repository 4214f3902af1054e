import type { KernelOrigin } from "../../contract/kernels.ts";
import type { Argument } from "../command.ts";

export const kernelArgument: Argument = { name: "KERNEL", help: "a name of `banger kernel list`" };

/** Where a kernel came from, for a person. */
export const origin = (source: KernelOrigin): string => {
  if (source.type === "debian-package") return `${source.package} of Debian ${source.suite}`;
  if (source.type === "oci") return `${source.reference} (${source.digest})`;
  return source.type === "bundle" ? source.url : source.from;
};
