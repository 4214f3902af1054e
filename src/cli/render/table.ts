/** Data as text for people. */

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this looks for
const CONTROL = /[\0-\x1f\x7f-\x9f]/;

/** Takes out what would move the cursor or colour the terminal: names and messages may come from a guest. */
export const printable = (text: string): string => (CONTROL.test(text) ? text.replace(/\p{Cc}/gu, "?") : text);

/** Columns under their headings. Plain loops: a listing of a thousand rows is printed by code that has just been loaded. */
export const table = (headings: readonly string[], rows: readonly (readonly string[])[]): string => {
  const all = [headings, ...rows.map((row) => row.map(printable))];
  const widths: number[] = headings.map(() => 0);
  for (const row of all)
    for (let column = 0; column < row.length; column++) {
      const { length } = row[column] ?? "";
      if (length > (widths[column] ?? 0)) widths[column] = length;
    }
  let text = "";
  for (const row of all) {
    let line = "";
    for (let column = 0; column < row.length; column++) line += `${(row[column] ?? "").padEnd(widths[column] ?? 0)}  `;
    text += `${text && "\n"}${line.trimEnd()}`;
  }
  return text;
};

/** `name: value` lines, values under each other; undefined values are left out. */
export const record = (fields: readonly (readonly [string, string | undefined])[]): string => {
  const shown = fields.filter((field): field is [string, string] => field[1] !== undefined);
  const width = Math.max(...shown.map(([name]) => name.length)) + 1;
  return shown.map(([name, value]) => `${`${name}:`.padEnd(width)}  ${printable(value)}`).join("\n");
};

const units = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1000],
] as const;

/** How long ago, coarsely: `3m`, `2d`. @param time in ms since 1970 */
export const age = (time: number, now = Date.now()): string => duration(now - time);

/** How long until then, coarsely. @param time in ms since 1970 */
export const until = (time: number, now = Date.now()): string => duration(time - now);

/** `3m`, `2d`. @param milliseconds below zero count as none */
export const duration = (milliseconds: number): string => {
  const elapsed = Math.max(0, milliseconds);
  const [unit, size] = units.find(([, size]) => elapsed >= size) ?? ["s", 1000];
  return `${Math.floor(elapsed / size)}${unit}`;
};

/** `2026-03-01 12:30:05`, local time. */
export const timestamp = (time: number): string => {
  const date = new Date(time - new Date(time).getTimezoneOffset() * 60_000);
  return date.toISOString().slice(0, 19).replace("T", " ");
};
