/** The LZMA decoder of XZ's LZMA2 (7-Zip's lzma-specification): range coder, literals, matches, in one output buffer. */

const STATES = 12;
const POSITION_STATES = 16;
const LITERAL_SIZE = 0x300;
const END_POSITION_MODEL = 14;
const FULL_DISTANCES = 128;
const MIN_MATCH = 2;

/** A length's decoder: two choices, low and middle trees per position state, one high tree. */
const LENGTH_LOW = 2;
const LENGTH_MIDDLE = LENGTH_LOW + POSITION_STATES * 8;
const LENGTH_HIGH = LENGTH_MIDDLE + POSITION_STATES * 8;
const LENGTH_SIZE = LENGTH_HIGH + 256;

/** Where each kind of probability begins. */
const IS_MATCH = 0;
const IS_REPEAT = IS_MATCH + STATES * POSITION_STATES;
const IS_REPEAT_0 = IS_REPEAT + STATES;
const IS_REPEAT_1 = IS_REPEAT_0 + STATES;
const IS_REPEAT_2 = IS_REPEAT_1 + STATES;
const IS_REPEAT_0_LONG = IS_REPEAT_2 + STATES;
const SLOT = IS_REPEAT_0_LONG + STATES * POSITION_STATES;
const DISTANCE = SLOT + 4 * 64;
const ALIGN = DISTANCE + 1 + FULL_DISTANCES - END_POSITION_MODEL;
const LENGTH = ALIGN + 16;
const REPEAT_LENGTH = LENGTH + LENGTH_SIZE;
const LITERAL = REPEAT_LENGTH + LENGTH_SIZE;

const HALF = 1 << 10;
const TOP = 2 ** 24;

export type LzmaDecoder = {
  /** Forgets what was learned, and with `properties` takes other parameters. Throws a RangeError for wrong ones. */
  reset(properties?: number): void;
  /**
   * Decodes `input` from `from` to `to` into `output` from `at` to `end`. Bytes before `at`, back to `dictionaryStart`, are
   * what matches refer to. Throws a RangeError for what cannot be.
   */
  decode(
    input: Buffer,
    from: number,
    to: number,
    output: Buffer,
    at: number,
    end: number,
    dictionaryStart: number,
  ): void;
};

export const lzmaDecoder = (): LzmaDecoder => {
  let literalContext = 0;
  let literalPositionMask = 0;
  let positionMask = 0;
  let probabilities = new Uint16Array(0);
  let state = 0;
  const repeats = [0, 0, 0, 0];

  const reset = (properties?: number): void => {
    if (properties !== undefined) {
      if (properties >= 9 * 5 * 5) throw new RangeError("its parameters are out of range");
      literalContext = properties % 9;
      const literalPosition = Math.floor(properties / 9) % 5;
      literalPositionMask = (1 << literalPosition) - 1;
      positionMask = (1 << Math.floor(properties / 45)) - 1;
      if (literalContext + literalPosition > 4) throw new RangeError("its parameters are out of range");
      probabilities = new Uint16Array(LITERAL + (LITERAL_SIZE << (literalContext + literalPosition)));
    }
    if (probabilities.length === 0) throw new RangeError("it has no parameters");
    probabilities.fill(HALF);
    state = 0;
    repeats.fill(0);
  };

  const decode: LzmaDecoder["decode"] = (input, from, to, output, start, end, dictionaryStart) => {
    const p = probabilities as unknown as number[];
    if (p.length === 0) throw new RangeError("it has no parameters");
    let next = from + 5;
    if (to - from < 5 || input[from] !== 0) throw new RangeError("a chunk is damaged");
    let range = 0xffffffff;
    let code = input.readUInt32BE(from + 1);

    const bit = (index: number): number => {
      const probability = p[index] as number;
      const bound = (range >>> 11) * probability;
      let result = 0;
      if (code < bound) {
        range = bound;
        p[index] = probability + ((2048 - probability) >> 5);
      } else {
        range -= bound;
        code -= bound;
        p[index] = probability - (probability >> 5);
        result = 1;
      }
      if (range < TOP) {
        range = (range << 8) >>> 0;
        code = ((code << 8) | (input[next++] as number)) >>> 0;
      }
      return result;
    };
    const direct = (count: number): number => {
      let result = 0;
      for (let left = count; left > 0; left--) {
        range >>>= 1;
        const isSet = code >= range ? 1 : 0;
        if (isSet) code -= range;
        result = (result << 1) | isSet;
        if (range < TOP) {
          range = (range << 8) >>> 0;
          code = ((code << 8) | (input[next++] as number)) >>> 0;
        }
      }
      return result >>> 0;
    };
    const tree = (base: number, bits: number): number => {
      let node = 1;
      for (let left = bits; left > 0; left--) node = (node << 1) | bit(base + node);
      return node - (1 << bits);
    };
    const reverseTree = (base: number, bits: number): number => {
      let node = 1;
      let result = 0;
      for (let index = 0; index < bits; index++) {
        const one = bit(base + node);
        node = (node << 1) | one;
        result |= one << index;
      }
      return result;
    };
    const length = (base: number, positionState: number): number => {
      if (bit(base) === 0) return MIN_MATCH + tree(base + LENGTH_LOW + positionState * 8, 3);
      if (bit(base + 1) === 0) return MIN_MATCH + 8 + tree(base + LENGTH_MIDDLE + positionState * 8, 3);
      return MIN_MATCH + 16 + tree(base + LENGTH_HIGH, 8);
    };
    const distance = (matchLength: number): number => {
      const slot = tree(SLOT + Math.min(matchLength - MIN_MATCH, 3) * 64, 6);
      if (slot < 4) return slot;
      const bits = (slot >> 1) - 1;
      const base = ((2 | (slot & 1)) << bits) >>> 0;
      if (slot < END_POSITION_MODEL) return base + reverseTree(DISTANCE + base - slot, bits);
      return base + direct(bits - 4) * 16 + reverseTree(ALIGN, 4);
    };

    let at = start;
    while (at < end) {
      if (next > to) throw new RangeError("a chunk is cut off");
      const positionState = (at - dictionaryStart) & positionMask;
      if (bit(IS_MATCH + state * POSITION_STATES + positionState) === 0) {
        const previous = at > dictionaryStart ? (output[at - 1] as number) : 0;
        const context =
          (((at - dictionaryStart) & literalPositionMask) << literalContext) + (previous >> (8 - literalContext));
        const base = LITERAL + LITERAL_SIZE * context;
        let symbol = 1;
        if (state >= 7) {
          const back = at - (repeats[0] as number) - 1;
          if (back < dictionaryStart) throw new RangeError("it refers to what is not there");
          let match = output[back] as number;
          do {
            const matchBit = (match >> 7) & 1;
            match <<= 1;
            const one = bit(base + ((1 + matchBit) << 8) + symbol);
            symbol = (symbol << 1) | one;
            if (matchBit !== one) break;
          } while (symbol < 0x100);
        }
        while (symbol < 0x100) symbol = (symbol << 1) | bit(base + symbol);
        output[at++] = symbol & 0xff;
        state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
        continue;
      }
      let matchLength = 0;
      if (bit(IS_REPEAT + state) === 0) {
        repeats[3] = repeats[2] as number;
        repeats[2] = repeats[1] as number;
        repeats[1] = repeats[0] as number;
        matchLength = length(LENGTH, positionState);
        state = state < 7 ? 7 : 10;
        repeats[0] = distance(matchLength);
      } else if (bit(IS_REPEAT_0 + state) === 0) {
        if (bit(IS_REPEAT_0_LONG + state * POSITION_STATES + positionState) === 0) {
          matchLength = 1;
          state = state < 7 ? 9 : 11;
        }
      } else {
        let found = repeats[1] as number;
        if (bit(IS_REPEAT_1 + state) === 1) {
          if (bit(IS_REPEAT_2 + state) === 0) found = repeats[2] as number;
          else {
            found = repeats[3] as number;
            repeats[3] = repeats[2] as number;
          }
          repeats[2] = repeats[1] as number;
        }
        repeats[1] = repeats[0] as number;
        repeats[0] = found;
      }
      if (matchLength === 0) {
        matchLength = length(REPEAT_LENGTH, positionState);
        state = state < 7 ? 8 : 11;
      }
      const back = (repeats[0] as number) + 1;
      if (back > at - dictionaryStart) throw new RangeError("it refers to what is not there");
      if (matchLength > end - at) throw new RangeError("a match goes past the end of its chunk");
      // One byte after the other: a match may overlap what it makes.
      for (let left = matchLength; left > 0; left--, at++) output[at] = output[at - back] as number;
    }
    if (next !== to || code !== 0) throw new RangeError("a chunk does not end where it should");
  };

  return { reset, decode };
};
