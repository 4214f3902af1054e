/** A question on stderr and its answer from stdin. */

/** @returns the line typed, empty when stdin ended */
export const prompt = async (question: string): Promise<string> => {
  const { createInterface } = process.getBuiltinModule("node:readline");
  const reader = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await new Promise<string>((resolve) => {
      reader.once("close", () => resolve(""));
      reader.question(question, resolve);
    });
  } finally {
    reader.close();
  }
};
