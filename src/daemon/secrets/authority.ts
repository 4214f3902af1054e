/** The authority that guests with secrets trust: made once for all VMs of this user, so that copies of a VM go on trusting it. */
import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext } from "node:tls";
import { readFileIfThere, writeFileAtomic } from "../../host/files.ts";
import { authorityFiles } from "../../host/paths.ts";
import { authorityCertificate, HOST_LIFE, hostCertificate, type KeyPair, newKeyPair } from "./certificate.ts";

export type Authority = {
  /** In PEM. */
  readonly certificate: string;
  /** To answer in a host's name. @param host a name or an IPv4 address */
  contextFor(host: string): SecureContext;
};

/** Made anew when less than this is left of it, in ms. */
const LEAST_LIFE = 60 * 86_400_000;
/** Hosts that are remembered. */
const HOSTS_MAX = 512;

type Kept = { keys: KeyPair; certificate: string };

/** What is there, unless it is of no use: half of it missing, not one another's, or too old. */
const read = async (): Promise<Kept | undefined> => {
  const files = authorityFiles();
  const [key, certificate] = await Promise.all([readFileIfThere(files.key), readFileIfThere(files.certificate)]);
  if (key === undefined || certificate === undefined) return undefined;
  try {
    const privateKey = createPrivateKey(key);
    const known = new X509Certificate(certificate);
    if (!known.checkPrivateKey(privateKey) || Date.parse(known.validTo) < Date.now() + LEAST_LIFE) return undefined;
    return { keys: { privateKey, publicKey: createPublicKey(privateKey) }, certificate };
  } catch {
    // No key, or no certificate.
    return undefined;
  }
};

const make = async (): Promise<Kept> => {
  const keys = await newKeyPair();
  const certificate = authorityCertificate(keys);
  const files = authorityFiles();
  await writeFileAtomic(files.key, keys.privateKey.export({ type: "pkcs8", format: "pem" }));
  await writeFileAtomic(files.certificate, certificate);
  return { keys, certificate };
};

export const openAuthority = async (): Promise<Authority> => {
  const { keys, certificate } = (await read()) ?? (await make());
  const own = await newKeyPair();
  const key = own.privateKey.export({ type: "pkcs8", format: "pem" });
  const contexts = new Map<string, { context: SecureContext; until: number }>();
  return {
    certificate,
    contextFor: (host) => {
      const known = contexts.get(host);
      if (known && known.until > Date.now()) return known.context;
      const oldest = contexts.keys().next();
      if (contexts.size >= HOSTS_MAX && !oldest.done) contexts.delete(oldest.value);
      const context = createSecureContext({ key, cert: hostCertificate(host, own.publicKey, keys) });
      contexts.set(host, { context, until: Date.now() + HOST_LIFE / 2 });
      return context;
    },
  };
};
