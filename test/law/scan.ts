/** Reads TypeScript source as far as the laws need it: what is code, what is a comment, and what is imported. */

/** Each text has the same length and line ends as the source, so that offsets agree. */
export type Scanned = {
  /** Comments and the content of strings, templates and regular expressions are spaces. */
  code: string;
  /** Only comments are spaces. */
  uncommented: string;
};

export type Import = { specifier: string; offset: number; typeOnly: boolean };

/** A `/` after one of these begins a regular expression, not a division. */
const beforeRegex =
  /(?:^|[=(,;:!&|?{}[+\-*%<>~^]|\b(?:return|typeof|case|in|of|delete|void|throw|new|do|else|await|yield))\s*$/;

export const scan = (source: string): Scanned => {
  const code = source.split("");
  const uncommented = source.split("");
  const blank = (target: string[], from: number, to: number): void => {
    for (let index = from; index < to; index += 1) if (target[index] !== "\n") target[index] = " ";
  };
  /** Depth of braces at which each open template's `${` stands. */
  const templates: number[] = [];
  let depth = 0;
  let at = 0;

  /** `from` is the first character of the content; returns the offset of the closing quote. */
  const quoted = (from: number, quote: string): number => {
    let index = from;
    while (index < source.length && source[index] !== quote && source[index] !== "\n")
      index += source[index] === "\\" ? 2 : 1;
    return Math.min(index, source.length);
  };
  /** Goes through a template's text; stops after its end or after a `${`. */
  const templateText = (from: number): number => {
    let index = from;
    while (index < source.length) {
      if (source[index] === "\\") index += 2;
      else if (source[index] === "`") {
        blank(code, from, index);
        return index + 1;
      } else if (source.startsWith("${", index)) {
        blank(code, from, index);
        templates.push(depth);
        depth += 1;
        return index + 2;
      } else index += 1;
    }
    blank(code, from, source.length);
    return source.length;
  };
  const regex = (from: number): number => {
    let index = from;
    let inClass = false;
    while (index < source.length && source[index] !== "\n" && (inClass || source[index] !== "/")) {
      if (source[index] === "\\") index += 1;
      else if (source[index] === "[") inClass = true;
      else if (source[index] === "]") inClass = false;
      index += 1;
    }
    return Math.min(index, source.length);
  };

  while (at < source.length) {
    const character = source[at] as string;
    if (source.startsWith("//", at) || (at === 0 && source.startsWith("#!"))) {
      const end = source.indexOf("\n", at);
      const to = end < 0 ? source.length : end;
      blank(code, at, to);
      blank(uncommented, at, to);
      at = to;
    } else if (source.startsWith("/*", at)) {
      const end = source.indexOf("*/", at + 2);
      const to = end < 0 ? source.length : end + 2;
      blank(code, at, to);
      blank(uncommented, at, to);
      at = to;
    } else if (character === '"' || character === "'") {
      const end = quoted(at + 1, character);
      blank(code, at + 1, end);
      at = end + 1;
    } else if (character === "`") {
      at = templateText(at + 1);
    } else if (character === "/" && beforeRegex.test(code.slice(Math.max(0, at - 40), at).join(""))) {
      const end = regex(at + 1);
      blank(code, at + 1, end);
      at = end + 1;
    } else if (character === "}" && templates.at(-1) === depth - 1) {
      templates.pop();
      depth -= 1;
      at = templateText(at + 1);
    } else {
      if (character === "{") depth += 1;
      if (character === "}") depth -= 1;
      at += 1;
    }
  }
  return { code: code.join(""), uncommented: uncommented.join("") };
};

/** Everything that takes a module by name; each ends just before the opening quote (or backtick) of the name. */
const importForms = [
  /\b(?:import|export)\b[^;"'`()=]*?\bfrom\s*(?=["'])/g,
  /\bimport\s*(?=["'])/g,
  /\bimport\s*\(\s*(?=["'`])/g,
  /\b(?:require|getBuiltinModule|createRequire\([^)]*\))\s*\(\s*(?=["'`])/g,
  /\b(?:require|import\.meta)\.resolve\s*\(\s*(?=["'`])/g,
];

export const importsOf = ({ code, uncommented }: Scanned): Import[] => {
  const found: Import[] = [];
  for (const form of importForms) {
    for (const match of code.matchAll(form)) {
      const open = match.index + match[0].length;
      const close = code.indexOf(code[open] as string, open + 1);
      if (close < 0) continue;
      const typeOnly = /^(?:import|export)\s+type\b/.test(match[0]);
      found.push({ specifier: uncommented.slice(open + 1, close), offset: match.index, typeOnly });
    }
  }
  return found.sort((left, right) => left.offset - right.offset);
};

/** Line number from 1. */
export const lineAt = (source: string, offset: number): number => source.slice(0, offset).split("\n").length;
