/** Makes ed25519 keys in OpenSSH's format (its PROTOCOL.key): in this process, since starting ssh-keygen costs more than all the rest of a key. */
import { generateKeyPair, randomBytes } from "node:crypto";
import { promisify } from "node:util";

const generate = promisify(generateKeyPair);
const TYPE = Buffer.from("ssh-ed25519");
/** A cipher's block; without a cipher OpenSSH pads to this. */
const BLOCK = 8;
const LINE = 70;

export type KeyPair = {
  /** The private key's file, text of PEM's form. */
  privateKey: string;
  /** The public key's file: one line. */
  publicKey: string;
};

/** A string of the SSH protocol: its length, then its bytes. */
const string = (bytes: Uint8Array): Buffer => {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
};

/** @param comment one line; may be empty */
export const makeKeyPair = async (comment: string): Promise<KeyPair> => {
  const { privateKey } = await generate("ed25519");
  const { d = "", x = "" } = privateKey.export({ format: "jwk" });
  const [seed, point] = [Buffer.from(d, "base64url"), Buffer.from(x, "base64url")];
  const publicBlob = Buffer.concat([string(TYPE), string(point)]);
  // The same number twice: how a reader sees that it has decrypted rightly.
  const check = randomBytes(4);
  const secret = Buffer.concat([
    check,
    check,
    publicBlob,
    string(Buffer.concat([seed, point])),
    string(Buffer.from(comment)),
  ]);
  const padding = Buffer.from(Array.from({ length: -secret.length & (BLOCK - 1) }, (_, index) => index + 1));
  const none = string(Buffer.from("none"));
  const one = Buffer.from([0, 0, 0, 1]);
  const whole = Buffer.concat([
    Buffer.from("openssh-key-v1\0"),
    // Cipher, key derivation and its options.
    none,
    none,
    string(Buffer.alloc(0)),
    one,
    string(publicBlob),
    string(Buffer.concat([secret, padding])),
  ]);
  const lines = whole.toString("base64").match(new RegExp(`.{1,${LINE}}`, "g")) ?? [];
  return {
    privateKey: ["-----BEGIN OPENSSH PRIVATE KEY-----", ...lines, "-----END OPENSSH PRIVATE KEY-----", ""].join("\n"),
    publicKey: `${TYPE} ${publicBlob.toString("base64")}${comment ? ` ${comment}` : ""}\n`,
  };
};
