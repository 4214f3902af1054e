/** The hash by which ext4 orders the names of a large folder: half of MD4, of unsigned bytes. */

const F = (x: number, y: number, z: number): number => z ^ (x & (y ^ z));
const G = (x: number, y: number, z: number): number => (x & y) + ((x ^ y) & z);
const H = (x: number, y: number, z: number): number => x ^ y ^ z;

/** Which word of the input each step of a round takes, how far it rotates, and the round's constant. */
const rounds = [
  { mix: F, words: [0, 1, 2, 3, 4, 5, 6, 7], turns: [3, 7, 11, 19], constant: 0 },
  { mix: G, words: [1, 3, 5, 7, 0, 2, 4, 6], turns: [3, 5, 9, 13], constant: 0x5a827999 },
  { mix: H, words: [3, 7, 2, 6, 1, 5, 0, 4], turns: [3, 9, 11, 15], constant: 0x6ed9eba1 },
] as const;

const transform = (state: Uint32Array, input: Uint32Array): void => {
  let [a = 0, b = 0, c = 0, d = 0] = state;
  for (const { mix, words, turns, constant } of rounds) {
    for (let step = 0; step < 8; step++) {
      const sum = (a + mix(b, c, d) + (input[words[step] as number] as number) + constant) | 0;
      const turn = turns[step & 3] as number;
      const turned = (sum << turn) | (sum >>> (32 - turn));
      [a, b, c, d] = [d, turned, b, c];
    }
  }
  state[0] = (state[0] as number) + a;
  state[1] = (state[1] as number) + b;
  state[2] = (state[2] as number) + c;
  state[3] = (state[3] as number) + d;
};

/** Words of one step of the hash. */
const WORDS = 8;
const input = new Uint32Array(WORDS);
const state = new Uint32Array(4);

const fillInput = (names: Uint8Array, start: number, length: number): void => {
  const lengthTwice = length | (length << 8);
  const padding = lengthTwice | (lengthTwice << 16);
  const taken = Math.min(length, WORDS * 4);
  input.fill(padding);
  let value = padding;
  for (let at = 0; at < taken; at++) {
    value = (names[start + at] as number) + (value << 8);
    if ((at & 3) === 3) {
      input[at >> 2] = value;
      value = padding;
    }
  }
  if (taken < WORDS * 4) input[taken >> 2] = value;
};

/** The highest hash means "end of folder" to readers, so that no name may have it. */
const END_OF_FOLDER = 0xfffffffe;

/**
 * Hash of the name that lies at `start` of `names`; its lowest bit is 0.
 * @param seed four words, the superblock's `s_hash_seed`, not all zero
 */
export const nameHash = (seed: Uint32Array, names: Uint8Array, start: number, length: number): number => {
  state.set(seed);
  for (let done = 0; done < length; done += WORDS * 4) {
    fillInput(names, start + done, length - done);
    transform(state, input);
  }
  const hash = ((state[1] as number) & ~1) >>> 0;
  return hash === END_OF_FOLDER ? END_OF_FOLDER - 2 : hash;
};
