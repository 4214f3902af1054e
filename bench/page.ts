/** docs/benchmarks.md: a section for each bench, each from one run, so that a run of some replaces theirs and leaves the others. */
import { type Figure, round } from "./measure.ts";
import type { Plot } from "./svg.ts";

const introduction = `# Benchmarks

Written by \`make bench\`; run it to repeat them, or \`make bench BENCH="idle exec"\` for some. Every figure is the median of n measurements (10th to 90th
percentile in brackets) and stands beside its baseline, measured in turn with it in the same run: absolute times move with the machine, ratios less.

The bare VMM is QEMU started by a script, with a static C program as init, a read-only root and a RAM overlay: same kernel, root file system, memory and
kernel arguments. \`scp\` goes through banger's ssh_config, that is over the same guest channel. Templates are off where a figure does not say otherwise.
`;

const row = ({ what, value, unit, n, spread, baseline, limit, holds }: Figure): string => {
  const range = spread ? ` (${round(spread[0])}–${round(spread[1])})` : "";
  const against = baseline ? `${baseline.what}: ${baseline.value} ${unit}` : "";
  return `| ${what} | **${value} ${unit}**${range} | ${n} | ${against} | ${limit} | ${holds ? "yes" : "**no**"} |`;
};

/** Only those that need KVM may measure nothing. */
const NOT_MEASURED = "Not measured: this machine has no KVM that works.";

const table = (figures: readonly Figure[]): string => `| what | measured | n | baseline | promised | holds |
|---|---|---|---|---|---|
${figures.map(row).join("\n")}`;

/** @param where date and machine, for a person */
export const section = (
  name: string,
  { figures, plots }: { figures: readonly Figure[]; plots: readonly Plot[] },
  where: string,
): string => `## ${name}

${where}

${figures.length > 0 ? table(figures) : NOT_MEASURED}
${plots.map((plot) => `\n![${plot.caption}](benchmarks/${plot.name}.svg)\n\n${plot.caption} Drawn by \`make bench BENCH="${name}"\`.\n`).join("")}`;

/**
 * @param page what was written before; empty: nothing
 * @param fresh sections by their name
 * @param order of the sections; one of another name is dropped
 */
export const mergePage = (page: string, fresh: ReadonlyMap<string, string>, order: readonly string[]): string => {
  const [, ...written] = page.split(/^(?=## )/m);
  const old = new Map(written.map((text) => [/^## (.*)$/m.exec(text)?.[1] ?? "", `${text.trimEnd()}\n`]));
  const sections = order.map((name) => fresh.get(name) ?? old.get(name)).filter((text) => text !== undefined);
  return [introduction, ...sections].join("\n");
};
