import { type WorkspaceMode, workspaceModes } from "../../workspace/manifest.ts";
import { oneOf, text } from "./values.ts";

/** What of a repository is brought into a VM. */
export const workspaceFlags = {
  branch: {
    kind: "value",
    placeholder: "NAME",
    help: "name of the branch in the VM; default: the one you are on",
    parse: text,
  },
  from: {
    kind: "value",
    placeholder: "COMMIT",
    help: "bring this commit or branch, in place of your working tree",
    parse: text,
  },
  mode: {
    kind: "value",
    placeholder: workspaceModes.join("|"),
    help: "history: the last 10 generations of commits, all, or files alone; default: shallow",
    parse: (value: string): WorkspaceMode => oneOf("mode", workspaceModes)(value),
  },
  "include-untracked": { kind: "switch", help: "also files that git neither tracks nor ignores" },
  "no-bootstrap": {
    kind: "switch",
    help: "do not set up what mise.toml, .tool-versions, devcontainer.json and their like ask for",
  },
  "dry-run": { kind: "switch", help: "print the files that would travel, and do nothing" },
} as const;
