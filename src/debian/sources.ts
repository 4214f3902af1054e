/** Apt's two formats of source lists (sources.list(5)), read into one shape and written back as deb822. */

/** Where packages come from: every combination of `uris` and `suites`. */
export type AptSource = {
  uris: string[];
  suites: string[];
  components: string[];
  /** Keyring paths, fingerprints or an embedded key, as apt takes it; undefined: apt's default keys. */
  signedBy: string | undefined;
};

const words = (text: string | undefined): string[] => text?.split(/\s+/).filter((word) => word !== "") ?? [];

/** Binary package sources of a `*.sources` file; disabled stanzas and other types are left out. */
export const parseDeb822 = (text: string): AptSource[] =>
  text
    .split(/\r?\n(?:[ \t]*\r?\n)+/)
    .map(parseStanza)
    .flatMap((fields) => {
      if (!words(fields.get("types")).includes("deb")) return [];
      if (/^(?:no|false|without|off|disable|0)$/i.test(fields.get("enabled") ?? "")) return [];
      const architectures = words(fields.get("architectures"));
      if (architectures.length > 0 && !architectures.includes("amd64")) return [];
      return complete({
        uris: words(fields.get("uris")),
        suites: words(fields.get("suites")),
        components: words(fields.get("components")),
        signedBy: fields.get("signed-by"),
      });
    });

/** Fields of one stanza by lower-case name. A continued value keeps its line breaks: an embedded key needs them. */
const parseStanza = (stanza: string): Map<string, string> => {
  const fields = new Map<string, string>();
  let name: string | undefined;
  for (const line of stanza.split(/\r?\n/)) {
    if (line.startsWith("#")) continue;
    if (/^[ \t]/.test(line)) {
      if (name !== undefined) fields.set(name, `${fields.get(name) ?? ""}\n${line}`);
      continue;
    }
    const colon = line.indexOf(":");
    if (colon < 1) continue;
    name = line.slice(0, colon).toLowerCase();
    fields.set(name, line.slice(colon + 1).trim());
  }
  return fields;
};

/** Binary package sources of a `*.list` file. */
export const parseOneLine = (text: string): AptSource[] =>
  text.split(/\r?\n/).flatMap((line) => {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
    if (!match) return [];
    const [, optionText, uri = "", suite = "", components] = match;
    const options = new Map(words(optionText).map((word) => splitOnce(word, "=")));
    const architectures = options.get("arch")?.split(",");
    if (architectures && !architectures.includes("amd64")) return [];
    return complete({
      uris: [uri],
      suites: [suite],
      components: words(components),
      signedBy: options.get("signed-by")?.replaceAll(",", " "),
    });
  });

const splitOnce = (text: string, separator: string): [string, string] => {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
};

const complete = (source: AptSource): AptSource[] =>
  source.uris.length > 0 && source.suites.length > 0 ? [source] : [];

/** The sources as the text of one deb822 file. */
export const renderDeb822 = (sources: readonly AptSource[]): string =>
  sources
    .map((source) =>
      [
        "Types: deb",
        `URIs: ${source.uris.join(" ")}`,
        `Suites: ${source.suites.join(" ")}`,
        `Components: ${source.components.join(" ")}`,
        ...(source.signedBy === undefined ? [] : [`Signed-By: ${source.signedBy}`]),
        "",
      ].join("\n"),
    )
    .join("\n");
