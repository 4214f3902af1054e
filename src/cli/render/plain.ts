/** Text that a guest may have written, made harmless for a terminal: no cursor, no title, no clipboard. */

/** Control characters but newline and tab become `?`. */
export const harmless = (text: string): string => text.replace(/[^\P{Cc}\n\t]/gu, "?");

/** What is not seen as it is: controls, formats (direction of text, no width), line ends of Unicode's own. */
const UNSEEN = /[\p{Cc}\p{Cf}\u2028\u2029]/gu;

/** One line with nothing hidden in it: tabs are spaces, and what cannot be seen is named, `^[` or `<U+202E>`. */
export const visible = (line: string): string =>
  line.replaceAll("\t", "    ").replace(UNSEEN, (character) => {
    const code = character.codePointAt(0) ?? 0;
    if (code < 32) return `^${String.fromCharCode(code + 64)}`;
    return `<U+${code.toString(16).toUpperCase().padStart(4, "0")}>`;
  });

/** JSON whose control characters are all escaped, also those above 127 that JSON allows and a terminal obeys. */
export const asciiJson = (value: unknown, indent?: number): string =>
  JSON.stringify(value, null, indent).replace(
    /[\x7f-\x9f]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
