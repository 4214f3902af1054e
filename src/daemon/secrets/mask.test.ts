import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import fc from "fast-check";
import { masking, masksFor, maskText } from "./mask.ts";

const through = async (chunks: readonly Buffer[], secrets: Parameters<typeof masksFor>[0]): Promise<Buffer> => {
  const out: Buffer[] = [];
  for await (const chunk of Readable.from(chunks).pipe(masking(masksFor(secrets)))) out.push(chunk as Buffer);
  return Buffer.concat(out);
};

test("a value is gone wherever the bytes are cut, and all else is as it was", async () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 200 });
  const value = fc.string({ unit: fc.constantFrom("a", "b"), minLength: 2, maxLength: 9 });
  await fc.assert(
    fc.asyncProperty(letters, value, fc.array(fc.nat(12), { minLength: 1 }), async (text, secret, cuts) => {
      const chunks: Buffer[] = [];
      for (let at = 0, turn = 0; at < text.length; turn++) {
        const length = (cuts[turn % cuts.length] ?? 0) + 1;
        chunks.push(Buffer.from(text.slice(at, at + length)));
        at += length;
      }
      const out = await through(chunks, [{ value: secret, placeholder: "PPPPPPPPPPPP" }]);
      assert.equal(out.toString(), text.replaceAll(secret, "P".repeat(secret.length)));
    }),
  );
});

test("nothing is held back but what may be the beginning of a value", async () => {
  const mask = masking(masksFor([{ value: "sesame-open", placeholder: "x" }]));
  const seen: string[] = [];
  mask.on("data", (chunk: Buffer) => seen.push(String(chunk)));
  for (const part of ["event: one\n\n", "it is ses", "ame-", "close, no: sesame-op", "en\n"]) mask.write(part);
  mask.end();
  await new Promise((resolve) => mask.once("end", resolve));
  assert.deepEqual(seen, ["event: one\n\n", "it is ", "sesame-close, no: ", "x**********\n"]);
});

test("a value that is repeated in JSON or in an address is gone too; in headers as in bodies", async () => {
  const value = 'pass"word/&+1';
  const secrets = [{ value, placeholder: "banger_secret_0" }];
  const text = `${JSON.stringify({ value })} ?q=${encodeURIComponent(value)} ${value}`;
  const out = (await through([Buffer.from(text)], secrets)).toString();
  assert.equal(out.length, text.length);
  assert.doesNotMatch(out, /pass|word/);
  assert.equal(maskText(text, masksFor(secrets)), out);
  assert.equal(maskText("untouched \u00e9", masksFor(secrets)), "untouched \u00e9");
});

test("of two values, one within the other, nothing of the longer is left", async () => {
  const secrets = [
    { value: "abcdefgh", placeholder: "1" },
    { value: "xxabcdefghyy", placeholder: "2" },
  ];
  assert.equal(
    (await through([Buffer.from("-xxabcdefghyy-abcdefgh-")], secrets)).toString(),
    "-2***********-1*******-",
  );
});
