/** X.509 certificates (RFC 5280) of an authority of ours and of hosts in its name, signed with ECDSA on P-256. */
import { createHash, generateKeyPair, type KeyObject, randomBytes, sign } from "node:crypto";
import { isIPv4 } from "node:net";
import { promisify } from "node:util";
import { bits, boolean, explicit, identifier, implicit, integer, octets, sequence, set, time, utf8 } from "./der.ts";

const DAY = 86_400_000;
/** Guests' clocks may be behind. */
const BACKDATED = 2 * DAY;
const AUTHORITY_LIFE = 10 * 365 * DAY;
/** Of a host's certificate, in ms: made anew long before. */
export const HOST_LIFE = 30 * DAY;

const ECDSA_SHA256 = sequence(identifier("1.2.840.10045.4.3.2"));
const COMMON_NAME = identifier("2.5.4.3");
const name = (text: string): Buffer => sequence(set(sequence(COMMON_NAME, utf8(text))));

const makeKey = promisify(generateKeyPair);
export type KeyPair = { publicKey: KeyObject; privateKey: KeyObject };
export const newKeyPair = (): Promise<KeyPair> => makeKey("ec", { namedCurve: "P-256" });

const publicKeyInfo = (key: KeyObject): Buffer => key.export({ type: "spki", format: "der" });
/** SHA-1 over the point alone, the last 65 bytes of its wrapping (RFC 5280, 4.2.1.2). */
const keyIdentifier = (key: KeyObject): Buffer => createHash("sha1").update(publicKeyInfo(key).subarray(-65)).digest();

const extension = (id: string, critical: boolean, value: Uint8Array): Buffer =>
  sequence(identifier(id), ...(critical ? [boolean(true)] : []), octets(value));
const basicConstraints = (...content: readonly Uint8Array[]) => extension("2.5.29.19", true, sequence(...content));
const keyUsage = (byte: number, unused: number) => extension("2.5.29.15", true, bits(Uint8Array.of(byte), unused));
const subjectKey = (key: KeyObject) => extension("2.5.29.14", false, octets(keyIdentifier(key)));
const issuerKey = (key: KeyObject) => extension("2.5.29.35", false, sequence(implicit(0, keyIdentifier(key))));
const SERVER_AUTH = extension("2.5.29.37", false, sequence(identifier("1.3.6.1.5.5.7.3.1")));
const alternativeName = (host: string) =>
  extension(
    "2.5.29.17",
    false,
    sequence(isIPv4(host) ? implicit(7, Buffer.from(host.split(".").map(Number))) : implicit(2, Buffer.from(host))),
  );

type Content = {
  issuer: Buffer;
  subject: Buffer;
  key: KeyObject;
  life: number;
  extensions: readonly Buffer[];
};

const certificate = ({ issuer, subject, key, life, extensions }: Content, signer: KeyObject): string => {
  const now = Date.now();
  const body = sequence(
    explicit(0, integer(Uint8Array.of(2))),
    integer(randomBytes(16)),
    ECDSA_SHA256,
    issuer,
    sequence(time(new Date(now - BACKDATED)), time(new Date(now + life))),
    subject,
    publicKeyInfo(key),
    explicit(3, sequence(...extensions)),
  );
  const whole = sequence(body, ECDSA_SHA256, bits(sign("sha256", body, signer)));
  const lines = whole.toString("base64").replace(/.{64}(?=.)/g, "$&\n");
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
};

const AUTHORITY = "banger: secrets of VMs on this machine";

/** In PEM. It can sign hosts' certificates and no other authority's. */
export const authorityCertificate = ({ publicKey, privateKey }: KeyPair): string =>
  certificate(
    {
      issuer: name(AUTHORITY),
      subject: name(AUTHORITY),
      key: publicKey,
      life: AUTHORITY_LIFE,
      extensions: [
        basicConstraints(boolean(true), integer(Uint8Array.of(0))),
        // keyCertSign and cRLSign.
        keyUsage(0x06, 1),
        subjectKey(publicKey),
      ],
    },
    privateKey,
  );

/** In PEM. @param host a name or an IPv4 address @param authority the pair of whoever signs */
export const hostCertificate = (host: string, key: KeyObject, authority: KeyPair): string =>
  certificate(
    {
      issuer: name(AUTHORITY),
      subject: name("banger"),
      key,
      life: HOST_LIFE,
      extensions: [
        basicConstraints(),
        // digitalSignature.
        keyUsage(0x80, 7),
        SERVER_AUTH,
        alternativeName(host),
        subjectKey(key),
        issuerKey(authority.publicKey),
      ],
    },
    authority.privateKey,
  );
