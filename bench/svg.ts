/** Plots as SVG: what of a figure is lost in a table, in two forms. Widths are pixels, values milliseconds. */

export type Series = { name: string; values: readonly number[] };
/** How one thing's time is made up, in order. */
export type Stack = { name: string; stages: readonly { what: string; value: number }[] };
/** `name`: of its file, without `.svg`. */
export type Plot = { name: string; caption: string; svg: string };

const WIDTH = 760;
const LEFT = 190;
const RIGHT = 24;
const ROW = 54;
const FOOT = 40;
const PALETTE = ["#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#bab0ac"];

const escaped = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

const text = (x: number, y: number, words: string, more = ""): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${escaped(words)}</text>`;

/** A round number of steps from zero to at least `most`. */
export const axisSteps = (most: number): number[] => {
  const rough = Math.max(most, 1) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, index) => index * step);
};

const frame = (
  title: string,
  rows: number,
  most: number,
  body: (at: (value: number) => number) => string[],
): string => {
  const steps = axisSteps(most);
  const last = steps.at(-1) ?? 1;
  const at = (value: number) => LEFT + (value / last) * (WIDTH - LEFT - RIGHT);
  const bottom = 40 + rows * ROW;
  const height = bottom + FOOT;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    text(12, 22, title, 'font-size="14" font-weight="bold"'),
    ...steps.map(
      (step) =>
        `<line x1="${at(step).toFixed(1)}" y1="36" x2="${at(step).toFixed(1)}" y2="${bottom}" stroke="#dddddd"/>${text(at(step), bottom + 16, String(Math.round(step)), 'text-anchor="middle" fill="#666666"')}`,
    ),
    text(WIDTH - RIGHT, bottom + 32, "ms", 'text-anchor="end" fill="#666666"'),
    ...body(at),
    "</svg>",
    "",
  ].join("\n");
};

const quantile = (sorted: readonly number[], q: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0;

/** Every measurement as a dot, with the median and the 95th percentile as lines. */
export const distribution = (title: string, series: readonly Series[]): string => {
  const most = Math.max(...series.flatMap(({ values }) => values));
  return frame(title, series.length, most, (at) =>
    series.flatMap(({ name, values }, row) => {
      const sorted = [...values].sort((a, b) => a - b);
      const middle = 40 + row * ROW + ROW / 2;
      const colour = PALETTE[row % PALETTE.length];
      const mark = (q: number, label: string) => {
        const x = at(quantile(sorted, q)).toFixed(1);
        return `<line x1="${x}" y1="${middle - 18}" x2="${x}" y2="${middle + 18}" stroke="#222222"/>${text(Number(x) + 3, middle - 12, `${label} ${Math.round(quantile(sorted, q))}`, 'font-size="10"')}`;
      };
      // Beside each other where they are alike: a dot that is hidden tells nothing.
      const dots = sorted.map(
        (value, index) =>
          `<circle cx="${at(value).toFixed(1)}" cy="${(middle + ((index % 5) - 2) * 4).toFixed(1)}" r="2.6" fill="${colour}" fill-opacity="0.6"/>`,
      );
      return [
        text(12, middle, name),
        text(12, middle + 14, `n = ${values.length}`, 'font-size="10" fill="#666666"'),
        ...dots,
        mark(0.5, "p50"),
        mark(0.95, "p95"),
      ];
    }),
  );
};

/** What each thing's time is made up of, as a bar. */
export const stacks = (title: string, bars: readonly Stack[]): string => {
  const sum = ({ stages }: Stack) => stages.reduce((total, { value }) => total + value, 0);
  const kinds = [...new Set(bars.flatMap(({ stages }) => stages.map(({ what }) => what)))];
  const colourOf = (what: string) => PALETTE[kinds.indexOf(what) % PALETTE.length];
  const legendRows = Math.ceil(kinds.length / 3) / 2;
  return frame(title, bars.length + legendRows, Math.max(...bars.map(sum)), (at) => [
    ...bars.flatMap((bar, row) => {
      const top = 40 + row * ROW + 10;
      let from = 0;
      const boxes = bar.stages.map(({ what, value }) => {
        const [x, width] = [at(from), at(from + value) - at(from)];
        from += value;
        const label =
          width > 26
            ? text(x + width / 2, top + 20, String(Math.round(value)), 'text-anchor="middle" fill="#ffffff"')
            : "";
        return `<rect x="${x.toFixed(1)}" y="${top}" width="${width.toFixed(1)}" height="32" fill="${colourOf(what)}"><title>${escaped(what)}: ${value.toFixed(1)} ms</title></rect>${label}`;
      });
      return [text(12, top + 20, bar.name), ...boxes, text(at(from) + 4, top + 20, `${Math.round(from)} ms`)];
    }),
    ...kinds.map((what, index) => {
      const [x, y] = [LEFT + (index % 3) * 185, 40 + bars.length * ROW + Math.floor(index / 3) * 22 + 14];
      return `<rect x="${x}" y="${y - 9}" width="10" height="10" fill="${colourOf(what)}"/>${text(x + 15, y, what)}`;
    }),
  ]);
};
