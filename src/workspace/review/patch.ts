/**
 * The patch of a guest, read strictly: a guest may write anything, and what is not a patch of git's is refused. Text is one character a byte.
 *
 *   diff --git a/NAME b/NAME
 *   new file mode | deleted file mode | old mode, new mode
 *   index OID..OID [MODE]
 *   --- +++ and hunks, or `GIT binary patch`
 */
import { BangerError } from "../../contract/errors.ts";
import { type Binary, readBinary } from "./binary.ts";

export type Hunk = {
  /** First line of it in the old file, from 1; the line before where it has none. */
  oldStart: number;
  newStart: number;
  /** What git found to name the place. */
  heading: string;
  /** ` `, `-` or `+`, then the line with its end. The last of a file may have none. */
  lines: string[];
};

export type FileChange = {
  /** Below the repository's root. */
  path: string;
  /** Absent: the file is new. */
  oldMode?: string;
  /** Absent: the file goes. */
  newMode?: string;
  oldOid?: string;
  newOid?: string;
  hunks: Hunk[];
  binary?: Binary;
  /** Of a file that becomes a link, or the other way round: what goes. */
  replaces?: FileChange;
};

const START = "diff --git ";
/** A patch may have so many bytes, and one file's part of it. */
const MOST_BYTES = 512 * 1024 * 1024;
const MOST_SECTION = 256 * 1024 * 1024;

const malformed = (what: string): BangerError =>
  new BangerError("GUEST_ERROR", `the VM's patch is not one of git's: ${what}`, {
    hint: "look at it by yourself: banger vm workspace export VM -o work.patch",
  });

/** Cuts a patch into the parts of its files. @throws GUEST_ERROR for what is too large or begins otherwise */
export async function* sectionsOf(source: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const mark = `\n${START}`;
  let pending: string[] = [];
  let size = 0;
  let total = 0;
  let overlap = "";
  for await (const chunk of source) {
    total += chunk.length;
    if (total > MOST_BYTES) throw malformed(`it has more than ${MOST_BYTES} bytes`);
    let text = overlap + Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).toString("latin1");
    for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark)) {
      yield [...pending, text.slice(0, at + 1)].join("");
      pending = [];
      size = 0;
      text = text.slice(at + 1);
    }
    // A mark may be cut by the end of a chunk.
    const keep = Math.min(text.length, mark.length - 1);
    overlap = text.slice(text.length - keep);
    pending.push(text.slice(0, text.length - keep));
    size += text.length - keep;
    if (size > MOST_SECTION) throw malformed(`a file's part has more than ${MOST_SECTION} bytes`);
  }
  const last = [...pending, overlap].join("");
  if (last !== "") yield last;
}

/** Files of a patch, one by one; one that changes its kind comes as one. @throws GUEST_ERROR */
export async function* readPatch(source: AsyncIterable<Uint8Array>): AsyncGenerator<FileChange> {
  let before: FileChange | undefined;
  for await (const section of sectionsOf(source)) {
    const change = readSection(section);
    if (before?.path === change.path) {
      if (before.newMode !== undefined || change.oldMode !== undefined || before.replaces)
        throw malformed("a file is changed twice");
      before = { ...change, replaces: before };
      continue;
    }
    if (before) yield before;
    before = change;
  }
  if (before) yield before;
}

/** Lines of a text, without their ends. */
const cursor = (text: string) => {
  let at = 0;
  return {
    /** The next line, not taken; undefined at the end. */
    peek: (): string | undefined => {
      if (at >= text.length) return undefined;
      const end = text.indexOf("\n", at);
      return text.slice(at, end < 0 ? text.length : end);
    },
    next: (): string => {
      if (at >= text.length) throw malformed("it ends in the middle");
      const end = text.indexOf("\n", at);
      const line = text.slice(at, end < 0 ? text.length : end);
      at = end < 0 ? text.length : end + 1;
      return line;
    },
    done: (): boolean => at >= text.length,
  };
};
export type Lines = ReturnType<typeof cursor>;

const readSection = (text: string): FileChange => {
  const lines = cursor(text);
  const first = lines.next();
  if (!first.startsWith(START)) throw malformed("it does not begin with a file");
  const change: FileChange = { path: nameIn(first.slice(START.length)), hunks: [] };
  readHead(lines, change);
  const line = lines.peek();
  if (line === "GIT binary patch") {
    lines.next();
    change.binary = readBinary(lines, malformed);
  } else if (line?.startsWith("--- ")) {
    lines.next();
    if (!lines.next().startsWith("+++ ")) throw malformed("a file's second name is missing");
    while (!lines.done()) change.hunks.push(readHunk(lines));
    if (change.hunks.length === 0) throw malformed("a file without hunks");
  }
  if (!lines.done()) throw malformed(`an unknown line ${JSON.stringify(lines.next().slice(0, 60))}`);
  return change;
};

const MODE = /^(?:100644|100755|120000|160000)$/;

const readHead = (lines: Lines, change: FileChange): void => {
  const mode = (text: string): string => {
    if (!MODE.test(text)) throw malformed(`${JSON.stringify(text.slice(0, 20))} is no mode of a file`);
    return text;
  };
  const seen = new Set<string>();
  for (let line = lines.peek(); line !== undefined; line = lines.peek()) {
    const [, key = "", rest = ""] =
      /^(old mode|new mode|deleted file mode|new file mode|index) (.*)$/s.exec(line) ?? [];
    if (key === "") break;
    if (seen.has(key)) throw malformed(`${key} twice`);
    seen.add(key);
    lines.next();
    if (key === "old mode" || key === "deleted file mode") change.oldMode = mode(rest);
    else if (key === "new mode" || key === "new file mode") change.newMode = mode(rest);
    else {
      const [, from, to, same] = /^([0-9a-f]{40,64})\.\.([0-9a-f]{40,64})(?: (\d{6}))?$/.exec(rest) ?? [];
      if (from === undefined || to === undefined) throw malformed("names of objects are missing");
      if (!/^0+$/.test(from)) change.oldOid = from;
      if (!/^0+$/.test(to)) change.newOid = to;
      if (same !== undefined) {
        change.oldMode ??= mode(same);
        change.newMode ??= mode(same);
      }
    }
  }
  const created = seen.has("new file mode");
  const deleted = seen.has("deleted file mode");
  if (created && (deleted || change.oldMode !== undefined)) throw malformed("a file both new and old");
  if (!created && !deleted && (change.oldMode === undefined || change.newMode === undefined))
    throw malformed("a file without a mode");
};

const HUNK = /^@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(.*)$/s;

const readHunk = (lines: Lines): Hunk => {
  const [, oldStart, oldCount = "1", newStart, newCount = "1", heading = ""] = HUNK.exec(lines.next()) ?? [];
  if (oldStart === undefined) throw malformed("a hunk without its place");
  let before = Number(oldCount);
  let after = Number(newCount);
  const hunk: Hunk = { oldStart: Number(oldStart), newStart: Number(newStart), heading: heading.trim(), lines: [] };
  while (before > 0 || after > 0 || lines.peek()?.startsWith("\\")) {
    const line = lines.next();
    const kind = line[0];
    if (kind === "\\") {
      const last = hunk.lines.pop();
      if (last === undefined || !last.endsWith("\n")) throw malformed("the end of a file in a wrong place");
      hunk.lines.push(last.slice(0, -1));
      continue;
    }
    if (kind === " ") {
      before -= 1;
      after -= 1;
    } else if (kind === "-") before -= 1;
    else if (kind === "+") after -= 1;
    else throw malformed("a line of a hunk that is none");
    if (before < 0 || after < 0) throw malformed("a hunk of another length than it says");
    hunk.lines.push(`${line}\n`);
  }
  if (hunk.lines.length === 0) throw malformed("an empty hunk");
  return hunk;
};

const ESCAPES: Record<string, string> = {
  a: "\x07",
  b: "\b",
  t: "\t",
  n: "\n",
  v: "\v",
  f: "\f",
  r: "\r",
  '"': '"',
  "\\": "\\",
};

const unquoted = (text: string): string =>
  text.replace(/\\(?:([0-3][0-7]{2})|(.))/gs, (_, octal: string | undefined, letter: string | undefined) => {
    if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8));
    const found = letter === undefined ? undefined : ESCAPES[letter];
    if (found === undefined) throw malformed("a name that is quoted in an unknown way");
    return found;
  });

/** `a/NAME b/NAME`, or both in quotes: one file, since renames are not looked for. */
const nameIn = (text: string): string => {
  const half = (text.length - 1) / 2;
  const [one, two] = [text.slice(0, half), text.slice(half + 1)];
  if (!Number.isInteger(half) || text[half] !== " ") throw malformed("a file with two names");
  const quoted = one.startsWith('"');
  const names = [one, two].map((name, index) => {
    if (quoted && !/^"(?:[^"\\]|\\.)*"$/s.test(name)) throw malformed("a name without its quotes");
    const plain = quoted ? unquoted(name.slice(1, -1)) : name;
    if (!plain.startsWith(index === 0 ? "a/" : "b/")) throw malformed("a name without its side");
    return plain.slice(2);
  });
  if (names[0] !== names[1] || names[0] === undefined) throw malformed("a file with two names");
  return names[0];
};
