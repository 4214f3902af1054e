/** One operation on several named things at once. */
import { BangerError, type ErrorCode, nearest, toBangerError, toErrorBody } from "../contract/errors.ts";
import { quoted } from "../contract/names.ts";
import type { Outcome } from "./command.ts";

export type Named = { id?: string | undefined; name: string };

/**
 * The VM a person means by its name, its id or the beginning of one of them.
 * @throws VM_NOT_FOUND, VM_AMBIGUOUS
 */
export const resolveVm = <T extends Named>(given: string, things: readonly T[]): T => {
  const exact = things.find(({ name, id }) => name === given || id === given);
  if (exact) return exact;
  const matches = given === "" ? [] : things.filter(({ name, id }) => name.startsWith(given) || id?.startsWith(given));
  const [only] = matches;
  if (only && matches.length === 1) return only;
  if (matches.length > 1) {
    throw new BangerError("VM_AMBIGUOUS", `${quoted(given)} may mean ${matches.map(({ name }) => name).join(", ")}`, {
      hint: "write more of the name",
    });
  }
  throw notFound("VM_NOT_FOUND", "VM", given, things, "banger vm list");
};

/** The image or kernel of exactly this name. */
export const resolveName =
  (code: "IMAGE_NOT_FOUND" | "KERNEL_NOT_FOUND" | "SNAPSHOT_NOT_FOUND", what: string, list: string) =>
  <T extends Named>(given: string, things: readonly T[]): T => {
    const found = things.find(({ name }) => name === given);
    if (found) return found;
    throw notFound(code, what, given, things, list);
  };

const notFound = (
  code: ErrorCode,
  what: string,
  given: string,
  things: readonly Named[],
  list: string,
): BangerError => {
  const near = nearest(
    given,
    things.map(({ name }) => name),
  );
  return new BangerError(code, `there is no ${what} ${quoted(given)}`, {
    hint: near ? `did you mean \`${near}\`?` : `see \`${list}\``,
  });
};

/**
 * Does `act` to each thing named, all at the same time. Names are resolved against one listing and each thing is taken once; the
 * others go on when one fails.
 * @returns names in the order given, and what failed
 */
export const actOnEach = async <T extends Named, R>(
  given: readonly string[],
  things: readonly T[],
  act: (thing: T) => Promise<R>,
  resolve: (given: string, things: readonly T[]) => T = resolveVm,
): Promise<Outcome> => {
  const taken = new Set<T>();
  const jobs = given.flatMap((name): { name: string; done: Promise<R> }[] => {
    let thing: T;
    try {
      thing = resolve(name, things);
    } catch (error) {
      return [{ name, done: Promise.reject(error) }];
    }
    if (taken.has(thing)) return [];
    taken.add(thing);
    return [{ name: thing.name, done: act(thing) }];
  });
  const results = await Promise.allSettled(jobs.map(({ done }) => done));
  const names = jobs.map(({ name }) => name);
  const failed = results.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
  const done = names.filter((_, index) => results[index]?.status === "fulfilled");
  return {
    ...(done.length > 0 ? { text: done.join("\n") } : {}),
    data: results.map((result, index) =>
      result.status === "fulfilled"
        ? { name: names[index], result: result.value }
        : { name: names[index], error: toErrorBody(result.reason) },
    ),
    errors: failed,
    ...(failed.some((error) => toBangerError(error).code === "CANCELLED") ? { exit: 130 } : {}),
  };
};
