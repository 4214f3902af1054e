/** Arrays that grow by doubling: hundreds of thousands of entries without an object for each. */

export type GrowingWords = {
  /** Adds a number (32 bits) and returns its index. */
  push(value: number): number;
  get(index: number): number;
  set(index: number, value: number): void;
  /** Forgets all; the space is kept. */
  clear(): void;
  readonly length: number;
};

export const growingWords = (capacity = 1024): GrowingWords => {
  let words = new Uint32Array(capacity);
  let length = 0;
  return {
    push(value) {
      if (length === words.length) {
        const larger = new Uint32Array(length * 2);
        larger.set(words);
        words = larger;
      }
      words[length] = value;
      return length++;
    },
    get: (index) => words[index] as number,
    set(index, value) {
      words[index] = value;
    },
    clear() {
      length = 0;
    },
    get length() {
      return length;
    },
  };
};

export type GrowingBytes = {
  /** Makes room for `count` bytes more and returns where they begin in `bytes()`. */
  extend(count: number): number;
  /** What is there now; the next `extend` may replace it. */
  bytes(): Buffer;
};

export const growingBytes = (capacity = 16384): GrowingBytes => {
  let bytes = Buffer.alloc(capacity);
  let length = 0;
  return {
    extend(count) {
      const start = length;
      length += count;
      if (length > bytes.length) {
        const larger = Buffer.alloc(Math.max(length, bytes.length * 2));
        larger.set(bytes);
        bytes = larger;
      }
      return start;
    },
    bytes: () => bytes,
  };
};
