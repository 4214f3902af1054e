/** A person and a review at a terminal: keys to decisions, until they are applied or left. */
import { openScreen } from "../../render/screen.ts";
import { terminalSize } from "../../render/output.ts";
import { accepted, type Entry, planAccepted, type Review } from "../../../workspace/review/review.ts";
import type { Operation } from "../../../workspace/review/plan-change.ts";
import { bodyOf, type Cursor, entriesShown, layout, screenOf } from "./view.ts";

export type Decision = { operations: Operation[] } | "left";

/** Redrawn at most so often while a patch arrives, in ms. */
const DRAW_EVERY = 50;

/**
 * @param loading ends when all is known; its failure ends the review
 * @param signal leaves the review
 * @returns what is to be applied
 */
export const interact = async (
  vm: string,
  review: Review,
  load: (onFile: () => void) => Promise<void>,
  signal: AbortSignal,
): Promise<Decision> => {
  const cursor: Cursor = { index: 0, part: 0, scroll: 0, risky: false, message: undefined };
  const end = Promise.withResolvers<Decision>();
  const leave = () => end.resolve("left");
  /** Waits for a `y`. */
  let asked: (() => Promise<void>) | undefined;
  let due: NodeJS.Timeout | undefined;
  let drawn = 0;
  /** Of the file that the cursor was put on: others may come before it. */
  let on: string | undefined;
  let isPut = false;

  const draw = (): void => {
    drawn = performance.now();
    if (isPut) on = current()?.path;
    screen.draw(screenOf(vm, review, cursor, terminalSize()));
  };
  const drawSoon = (): void => {
    due ??= setTimeout(
      () => {
        due = undefined;
        const now = entriesShown(review, cursor).findIndex(({ path }) => path === on);
        if (now >= 0) cursor.index = now;
        keepInside();
        draw();
      },
      Math.max(0, drawn + DRAW_EVERY - performance.now()),
    );
  };
  const current = (): Entry | undefined => entriesShown(review, cursor)[cursor.index];
  const keepInside = (): void => {
    cursor.index = Math.max(0, Math.min(cursor.index, entriesShown(review, cursor).length - 1));
  };
  const showPart = (): void => {
    const entry = current();
    if (!entry) return;
    const at = bodyOf(entry).findIndex(({ part }) => part === cursor.part);
    cursor.scroll = Math.max(0, cursor.part === 0 ? 0 : at);
  };
  const moveFile = (to: number): void => {
    cursor.index = to;
    keepInside();
    cursor.part = 0;
    cursor.scroll = 0;
  };
  const movePart = (by: number): void => {
    const entry = current();
    const part = cursor.part + by;
    if (entry && part >= 0 && part < entry.parts.length) {
      cursor.part = part;
      showPart();
    } else if (by > 0) moveFile(cursor.index + 1);
  };
  const decide = (entry: Entry, verdict: boolean, part?: number): boolean => {
    entry.conflict = undefined;
    if (!entry.change) cursor.message = "this file is still being read";
    else if (entry.parts.length === 0) cursor.message = "this can never be applied by banger";
    else if (part === undefined) entry.verdicts = entry.verdicts.map(() => verdict);
    else entry.verdicts[part] = verdict;
    return entry.parts.length > 0;
  };
  const page = (): number => Math.max(1, layout(terminalSize()).changes - 2);
  const scroll = (by: number): void => {
    const entry = current();
    if (entry) cursor.scroll = Math.max(0, Math.min(cursor.scroll + by, bodyOf(entry).length - 1));
  };
  const ask = (question: string, then: () => Promise<void>): void => {
    cursor.message = question;
    asked = then;
  };
  const apply = async (): Promise<void> => {
    const { operations, conflicts } = await planAccepted(review);
    if (conflicts.length === 0) return end.resolve({ operations });
    cursor.risky = false;
    moveFile(review.entries().findIndex(({ conflict }) => conflict !== undefined));
    cursor.message = `nothing was applied: ${conflicts.length} in conflict, marked by !; reject them, or change the host's side, then w again`;
  };
  const taken = (): number => review.entries().filter((entry) => accepted(entry).length > 0).length;

  const keys: Record<string, () => void> = {
    up: () => moveFile(cursor.index - 1),
    k: () => moveFile(cursor.index - 1),
    down: () => moveFile(cursor.index + 1),
    j: () => moveFile(cursor.index + 1),
    home: () => moveFile(0),
    end: () => moveFile(entriesShown(review, cursor).length - 1),
    left: () => movePart(-1),
    h: () => movePart(-1),
    right: () => movePart(1),
    l: () => movePart(1),
    "page-down": () => scroll(page()),
    "page-up": () => scroll(-page()),
    a: () => void (whenCurrent((entry) => decide(entry, true)) && moveFile(cursor.index + 1)),
    r: () => void (whenCurrent((entry) => decide(entry, false)) && moveFile(cursor.index + 1)),
    y: () => void (whenCurrent((entry) => decide(entry, true, cursor.part)) && movePart(1)),
    n: () => void (whenCurrent((entry) => decide(entry, false, cursor.part)) && movePart(1)),
    A: () => {
      if (!review.isComplete()) cursor.message = "the VM's work is still being read";
      else
        for (const entry of review.entries()) if (entry.risks.size === 0 && entry.parts.length > 0) decide(entry, true);
    },
    f: () => {
      cursor.risky = !cursor.risky;
      moveFile(0);
    },
    w: () => {
      if (!review.isComplete()) cursor.message = "the VM's work is still being read";
      else if (taken() === 0) cursor.message = "nothing is accepted yet";
      else ask(`apply ${taken()} of ${review.entries().length} files to the host? y/n`, apply);
    },
    q: () => (taken() === 0 ? leave() : ask("leave, and apply nothing? y/n", async () => leave())),
    interrupt: leave,
  };
  const whenCurrent = (act: (entry: Entry) => boolean): boolean => {
    const entry = current();
    return entry !== undefined && act(entry);
  };
  const onKey = (name: string): void => {
    isPut = true;
    const answer = asked;
    asked = undefined;
    cursor.message = undefined;
    if (name === "interrupt") leave();
    else if (answer && name === "y") answer().then(draw, end.reject);
    else if (!answer && Object.hasOwn(keys, name)) keys[name]?.();
    draw();
  };

  using screen = openScreen({ key: onKey, resize: draw, closed: leave });
  signal.addEventListener("abort", leave, { once: true });
  draw();
  load(drawSoon).then(draw, end.reject);
  try {
    return await end.promise;
  } finally {
    clearTimeout(due);
    signal.removeEventListener("abort", leave);
  }
};
