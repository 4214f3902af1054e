/** Finds the line that a key of a TOML document stands on: the parser does not keep it, and an error must name it. */

/** The parts of a dotted key such as `a."b.c".d`. */
const keyParts = (text: string): string[] =>
  [...text.matchAll(/"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+)/g)].map(
    ([, basic, literal, bare]) => basic ?? literal ?? bare ?? "",
  );

const KEY =
  /^\s*((?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=/;

const startsWith = (path: readonly (string | number)[], start: readonly (string | number)[]): boolean =>
  start.every((part, index) => path[index] === part);

/**
 * @param path keys and array indexes
 * @returns the line, from 1, of the key or the nearest table around it; undefined where neither is written down
 */
export const lineOfKey = (text: string, path: readonly (string | number)[]): number | undefined => {
  const counts = new Map<string, number>();
  let table: (string | number)[] = [];
  let best: { line: number; depth: number } | undefined;
  for (const [index, line] of text.split("\n").entries()) {
    const header = /^\s*(\[\[?)([^\]]+)\]/.exec(line);
    const key = header ? undefined : KEY.exec(line)?.[1];
    let found: (string | number)[] | undefined;
    if (header) {
      const name = keyParts(header[2] ?? "");
      table = [...name];
      if (header[1] === "[[") {
        const count = counts.get(name.join("\0")) ?? 0;
        counts.set(name.join("\0"), count + 1);
        table.push(count);
      }
      found = table;
    } else if (key !== undefined) found = [...table, ...keyParts(key)];
    // The whole path, or the deepest part of it that has a line of its own (the rest stands in an inline table or a list).
    if (found && startsWith(path, found) && found.length > (best?.depth ?? 0))
      best = { line: index + 1, depth: found.length };
    // What was looked for is a table, and written as something longer: `[[vm_defaults]]`, `vm_defaults.vcpu = 1`.
    else if (found && !best && startsWith(found, path)) best = { line: index + 1, depth: 0 };
  }
  return best?.line;
};
