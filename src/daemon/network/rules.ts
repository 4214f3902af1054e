/** The rules of a VM's network: which may be, and their change while it runs. */
import { BangerError } from "../../contract/errors.ts";
import type { NetRequest, NetRule } from "../../contract/network.ts";
import { formatNetRule, parseNetRule, sameNetRule } from "../../contract/net-rules.ts";
import { vmFiles } from "../../host/paths.ts";
import { requireFilter } from "../../vmm/filter.ts";
import type { VmActor } from "../vms/actor.ts";
import type { BootServices } from "../vms/services.ts";
import { heedsRules, writeRules } from "./rules-file.ts";

/** More than so many rules of one VM are a mistake. */
const MAX_RULES = 1000;

/** @returns them as the filter understands them: networks by their first address @throws USAGE */
export const checkRules = (rules: readonly NetRule[]): NetRule[] => {
  if (rules.length > MAX_RULES)
    throw new BangerError("USAGE", `a VM can have ${MAX_RULES} network rules, not ${rules.length}`, {
      hint: "write networks in place of single addresses",
    });
  return rules.map((rule) => parseNetRule(rule.action, formatNetRule(rule)));
};

/**
 * Changes the rules of a VM's network, at once where it runs.
 * @throws USAGE for too many, or one to take away that is not there; TOOL_MISSING, VM_WRONG_STATE where nothing heeds them; then all stay
 */
export const changeRules = async (
  actor: VmActor,
  request: NetRequest,
  { driver, networkOf }: Pick<BootServices, "driver" | "networkOf">,
): Promise<void> => {
  const [add, remove] = [checkRules(request.add ?? []), checkRules(request.remove ?? [])];
  if (add.length > 0) requireFilter((await driver.host()).network);
  const path = vmFiles(actor.row().id).networkRules;
  const heeded = await heedsRules(path);
  const { name, network, rules, state, helpers } = actor.row();
  const running = state === "running" || state === "paused";
  if (network !== "none" && running && !(heeded && helpers.length > 0))
    throw new BangerError("VM_WRONG_STATE", `nothing heeds network rules of VM ${name} as it was started`, {
      hint: `banger vm restart ${name}`,
    });
  const missing = remove.find((rule) => !rules.some((present) => sameNetRule(rule, present)));
  if (missing)
    throw new BangerError("USAGE", `VM ${name} has no rule ${missing.action} ${formatNetRule(missing)}`, {
      hint: `see those it has: banger vm net rules ${name}`,
    });
  const stays = (rule: NetRule) => ![...add, ...remove].some((other) => sameNetRule(rule, other));
  actor.record({ rules: checkRules([...add, ...rules.filter(stays)]) });
  if (network !== "none" && state !== "stopped") await writeRules(path, () => networkOf(actor.row()));
};
