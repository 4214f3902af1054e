/** Names for VMs that were given none. */
import { randomInt } from "node:crypto";

const adjectives = [
  "agile", "amber", "bold", "brave", "bright", "brisk", "calm", "clever", "cosmic", "crisp", "daring", "eager", "early", "fancy", "fast", "fond",
  "fresh", "gentle", "giant", "glad", "golden", "grand", "happy", "honest", "humble", "jolly", "keen", "kind", "lively", "lucky", "mellow", "merry",
  "mighty", "neat", "nimble", "noble", "patient", "plucky", "polite", "proud", "quick", "quiet", "rapid", "ready", "sharp", "shiny", "silent",
  "smart", "snug", "solid", "steady", "sunny", "swift", "tidy", "tough", "vivid", "warm", "wise", "witty", "zesty",
];
const nouns = [
  "badger", "beacon", "bison", "brook", "canyon", "cedar", "cliff", "comet", "condor", "coral", "crane", "delta", "dune", "eagle", "ember", "falcon",
  "fern", "fjord", "forest", "fox", "glacier", "harbor", "hawk", "heron", "island", "jaguar", "lagoon", "lake", "lark", "lynx", "maple", "marten",
  "meadow", "mesa", "moose", "ocean", "orca", "otter", "owl", "panda", "pebble", "pine", "plover", "puffin", "raven", "reef", "ridge", "river",
  "robin", "salmon", "seal", "sparrow", "spruce", "summit", "swan", "tiger", "trout", "tundra", "walrus", "willow",
];

const pick = (words: readonly string[]): string => words[randomInt(words.length)] ?? "vm";

/** An adjective and a noun that `taken` does not hold; a number behind them when chance does not find one. */
export const newName = (taken: (name: string) => boolean): string => {
  for (let attempt = 0; attempt < 20; attempt++) {
    const name = `${pick(adjectives)}-${pick(nouns)}`;
    if (!taken(name)) return name;
  }
  for (;;) {
    const name = `${pick(adjectives)}-${pick(nouns)}-${randomInt(1000, 10_000)}`;
    if (!taken(name)) return name;
  }
};
