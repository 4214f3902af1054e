import { formatSize } from "../../contract/names.ts";
import { openClient } from "../../client/client.ts";
import { devcontainerIn } from "../../workspace/devcontainer.ts";
import { defineCommand } from "../command.ts";
import { workspaceFlags } from "../flags/workspace.ts";
import { interruptible } from "../interrupt.ts";
import { progressDisplay } from "../render/progress.ts";
import { sayNotes, vmArgument } from "../vm/shared.ts";
import { guestFiles } from "../copy/guest-files.ts";
import { bringIn } from "./bring.ts";
import { listing, planFrom } from "./plan.ts";
import { readRecord } from "./record.ts";
import { workspaceStaging } from "./staging.ts";
import { setUp } from "./tools.ts";

export const command = defineCommand({
  usage: ["VM PATH [FLAGS]"],
  description:
    "The files that git tracks, as they are in your working tree, with the last commits, your branch, name and address:\nthey come to /root/NAME, and shells begin there. Done again, what has changed on the host follows; what the VM has\nchanged itself is not overwritten. Ignored files never travel.",
  args: [vmArgument, { name: "PATH", help: "a folder of a git repository" }],
  argv: "none",
  flags: {
    ...workspaceFlags,
    readonly: { kind: "switch", help: "nothing can be written there in the VM, until it is restarted" },
    force: { kind: "switch", short: "f", help: "overwrite what was changed in the VM" },
  },
  examples: [
    ["banger vm workspace prepare box ./repo", "bring it in, or what has changed"],
    ["banger vm workspace prepare box ./repo --from main --branch fix", "a new branch of a commit"],
    ["banger vm workspace prepare box ./repo --dry-run", "which files would travel?"],
  ],
  run: async ({ args: [vm = "", path = ""], values }) => {
    using interrupt = interruptible();
    using display = progressDisplay();
    await using staging = await workspaceStaging();
    using client = openClient();
    const files = guestFiles(client, vm, interrupt.signal);
    let record: ReturnType<typeof readRecord> | undefined;
    const plan = await planFrom(path, values, staging.path, interrupt.signal, ({ name }) => {
      if (values["dry-run"]) return;
      record = readRecord(files, name);
      // Whoever reads a repository that is refused does not wait for it.
      record.catch(() => undefined);
    });
    if (values["dry-run"]) return listing(plan);
    const options = { staging: staging.path, force: values.force, readonly: values.readonly, record };
    const brought = await bringIn(client, vm, plan, options, { signal: interrupt.signal, report: display.report });
    if (!values["no-bootstrap"]) {
      const { name, id } = await client.call("vmShow", { vm }, {});
      await setUp(client, { name, id }, plan, "before", {
        signal: interrupt.signal,
        report: display.report,
      });
    }
    display.clear();
    const container = brought.isNew && !values["no-bootstrap"] && devcontainerIn(plan.states.get("")?.entries ?? []);
    await sayNotes([
      ...plan.notes,
      ...(container ? [`${container.path} is ignored: it shapes new VMs only (banger vm run ${path})`] : []),
    ]);
    const { changed, removed, bytes } = brought;
    const gone = removed === 0 ? "" : `, ${removed} removed`;
    return {
      data: brought,
      text: `${brought.path}: ${changed} of ${plan.paths.length} files sent${gone}, ${formatSize(bytes)}`,
    };
  },
});
