import { BangerError, errnoOf } from "../../contract/errors.ts";
import type { Vm } from "../../contract/vms.ts";
import { type Client, openClient } from "../../client/client.ts";
import { raw } from "../../workspace/git.ts";
import { openRepository, type Repository } from "../../workspace/repository.ts";
import type { Conflict, Operation } from "../../workspace/review/plan-change.ts";
import { newReview, planAccepted, type Review } from "../../workspace/review/review.ts";
import { applyAll, recover } from "../../workspace/review/transaction.ts";
import { defineCommand, type Outcome } from "../command.ts";
import { text } from "../flags/values.ts";
import { interruptible } from "../interrupt.ts";
import { usage } from "../parse.ts";
import { isTerminal } from "../render/output.ts";
import { progressDisplay } from "../render/progress.ts";
import { stdinIsTerminal } from "../terminal.ts";
import { sayNotes, vmArgument } from "../vm/shared.ts";
import { unsettledNote, workspaceOf } from "./patch.ts";
import { interact } from "./review/interact.ts";
import { loadPatch, namesIn } from "./review/load.ts";
import { conflictLines, emptyText, nameOf, reviewData, statText } from "./review/text.ts";

export const command = defineCommand({
  usage: ["VM", "VM --stat", "VM --accept PATH..."],
  description:
    "What the VM has changed of the repository, file by file and hunk by hunk, with what deserves a second look. What you accept\nis applied to your working tree: all of it or, where both sides have changed the same lines, nothing, with both sides shown.\nNothing is run by it: no hook, no filter. Nothing is staged or committed.",
  args: [vmArgument],
  argv: "none",
  flags: {
    stat: { kind: "switch", help: "print files, lines and risks, and change nothing" },
    accept: {
      kind: "list",
      placeholder: "PATH",
      help: "apply this file or folder, as --stat names it, without asking; `.`: everything",
      parse: text,
    },
  },
  examples: [
    ["banger vm workspace review box", "look through the VM's work, and take over what is good"],
    ["banger vm workspace review box --stat", "which files, and with which risks?"],
    ["banger vm workspace review box --accept src", "take over a folder"],
    ["banger vm workspace review box --json", "all of it, for a program"],
  ],
  run: async ({ args: [reference = ""], values, json }) => {
    const looks = values.stat || (json && values.accept.length === 0);
    if (values.stat && values.accept.length > 0)
      throw usage("vm workspace review", "--stat and --accept contradict each other", "look first, then accept");
    if (!looks && values.accept.length === 0 && !(stdinIsTerminal() && isTerminal(1)))
      throw usage("vm workspace review", "there is no terminal to review on", "use --stat, --json or --accept");
    using interrupt = interruptible();
    using client = openClient();
    const vm = await client.call("vmShow", { vm: reference }, {});
    if (!looks && values.accept.length === 0) return await reviewByHand(client, vm, interrupt.signal);
    const repository = await repositoryOf(vm);
    const review = newReview(repository.root, repository.git);
    using display = progressDisplay();
    display.report({ stage: "review", message: "reading the VM's work" });
    const settled = await loadPatch(client, vm, review, interrupt.signal);
    display.clear();
    if (!settled) await sayNotes([unsettledNote(vm.name)]);
    if (looks) return { text: statText(review), data: reviewData(review) };
    await acceptNamed(review, values.accept);
    const { operations, conflicts } = await planAccepted(review);
    if (conflicts.length > 0) throw conflictError(conflicts);
    return await applied(repository, review, operations, interrupt.signal);
  },
});

/** Where the VM's repository came from, as it stands; what a killed review left there is undone. */
const repositoryOf = async (vm: Vm): Promise<Repository> => {
  const { repository: path } = workspaceOf(vm);
  const repository = await openRepository(path).catch((error: unknown) => {
    if (!(error instanceof BangerError) || error.code !== "WORKSPACE_REFUSED") throw error;
    throw new BangerError("WORKSPACE_REFUSED", `the repository of VM ${vm.name} is not at ${path} any more`, {
      hint: `take the work out as a patch: banger vm workspace export ${vm.name} -o work.patch`,
      cause: error,
    });
  });
  const { undone, foreign } = await recover(repository);
  if (undone) await sayNotes(["a review that was ended while it applied has been undone"]);
  for (const name of foreign) await sayNotes([`${nameOf(name)} was changed since, and stays as it is`]);
  return repository;
};

const reviewByHand = async (client: Client, vm: Vm, signal: AbortSignal): Promise<Outcome> => {
  // What is still being read when the review is left need not be.
  const loading = new AbortController();
  const both = AbortSignal.any([signal, loading.signal]);
  // The guest works while the host's repository is looked at.
  const names = namesIn(client, vm, workspaceOf(vm).path, both);
  try {
    const repository = await repositoryOf(vm);
    const review = newReview(repository.root, repository.git);
    const load = async (onFile: () => void): Promise<void> => {
      for await (const some of names) {
        review.list(some);
        onFile();
      }
      await review.lookUpIgnored();
      settled = await loadPatch(client, vm, review, both, onFile);
    };
    let settled = true;
    const decision = await interact(vm.name, review, load, signal);
    if (!settled) await sayNotes([unsettledNote(vm.name)]);
    if (decision === "left")
      return { text: review.isComplete() && review.entries().length === 0 ? emptyText(review) : "nothing was applied" };
    return await applied(repository, review, decision.operations, signal);
  } finally {
    loading.abort(new BangerError("CANCELLED", "cancelled"));
  }
};

/** @throws USAGE for a path that nothing was changed at, or what can never be applied */
const acceptNamed = async (review: Review, names: readonly string[]): Promise<void> => {
  for (const name of names) {
    const wanted = raw(name.replace(/\/+$/, ""));
    const found = review
      .entries()
      .filter(({ path }) => wanted === "." || path === wanted || path.startsWith(`${wanted}/`));
    if (found.length === 0)
      throw usage(
        "vm workspace review",
        `the VM has changed nothing at ${nameOf(wanted)}`,
        "see what it has with --stat",
      );
    for (const entry of found) entry.verdicts = entry.parts.map(() => true);
    const never = found.filter(({ parts }) => parts.length === 0).map(({ path }) => nameOf(path));
    if (never.length > 0) await sayNotes([`not applied by banger: ${never.slice(0, 10).join(", ")}`]);
  }
};

const applied = async (
  repository: Repository,
  review: Review,
  operations: readonly Operation[],
  signal: AbortSignal,
): Promise<Outcome> => {
  await applyAll(repository, operations, signal).catch((error: unknown) => {
    if (errnoOf(error) === "ENOSPC")
      throw new BangerError("TOOL_FAILED", `there is no room in ${repository.root}: nothing was applied`, {
        cause: error,
      });
    throw error;
  });
  const count = operations.length;
  return {
    text: `${count} ${count === 1 ? "file" : "files"} changed in ${review.root}`,
    data: {
      repository: review.root,
      changed: operations.map(({ path }) => Buffer.from(path, "latin1").toString("utf8")),
    },
  };
};

/** Both sides of the first ones; all of them in its details. */
const conflictError = (conflicts: readonly Conflict[]): BangerError => {
  const tail = conflicts.slice(0, 5).flatMap(conflictLines).join("\n");
  const shownNames = conflicts
    .slice(0, 10)
    .map(({ path }) => nameOf(path))
    .join(", ");
  return new BangerError("WORKSPACE_CONFLICT", `nothing was applied: both sides have changed ${shownNames}`, {
    hint: "accept the other files alone, or change the host's side first",
    details: { tail, conflicts: conflicts.map((conflict) => readable(conflict)) },
  });
};

const readable = ({ path, why, clashes }: Conflict) => {
  const lines = (side: readonly string[]) => side.map((line) => Buffer.from(line, "latin1").toString("utf8"));
  return {
    path: nameOf(path),
    why,
    clashes: clashes.map(({ line, base, host, vm }) => ({ line, base: lines(base), host: lines(host), vm: lines(vm) })),
  };
};
