import { BangerError } from "../contract/errors.ts";
import type { NetworkBackend } from "./driver.ts";

/** @throws TOOL_MISSING where the network has no filter that would heed a VM's rules */
export const requireFilter = ({ name }: NetworkBackend): void => {
  if (name === "passt") return;
  throw new BangerError("TOOL_MISSING", "passt is not installed: nothing here heeds network rules", {
    hint: "install it: sudo apt-get install -y passt; then: banger daemon stop",
  });
};
