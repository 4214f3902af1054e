/** What a guest with secrets is told: placeholders and the proxy in its environment, and the authority to trust. */
import { posix } from "node:path";
import { finished } from "node:stream/promises";
import { BangerError } from "../../contract/errors.ts";
import { abortable, type Progress } from "../../contract/progress.ts";
import type { SecretRecord } from "../../contract/secrets.ts";
import { callGuest } from "../../guest/call.ts";
import type { GuestConnection } from "../../guest/connection.ts";

/** Of the guest's loopback: where its programs find the proxy. */
export const PROXY_PORT = 42070;

/** Where distributions have the certificates that all programs trust. */
const USUAL_BUNDLE = "/etc/ssl/certs/ca-certificates.crt";
const BUNDLES = [USUAL_BUNDLE, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];
/** Where they look for more when they make that file anew: a folder that is made, and one that is used where it is there. */
const ANCHOR = "/usr/local/share/ca-certificates/banger.crt";
const OTHER_ANCHORS = "/etc/pki/ca-trust/source/anchors";
/** Read by PAM for each session that sshd, su and cron begin. */
const ENVIRONMENT = "/etc/environment";
/** More than so many bytes of a file are not read. */
const FILE_MAX = 4 * 1024 * 1024;

type GuestFile = { text: string; mode: number };

const readGuest = async (guest: GuestConnection, path: string, progress: Progress): Promise<GuestFile | undefined> => {
  const stream = guest.open({ op: "read", path, length: FILE_MAX });
  stream.errors.resume();
  const chunks: Buffer[] = [];
  stream.output.on("data", (chunk: Buffer) => chunks.push(chunk));
  try {
    const result = await abortable(stream.result, progress.signal);
    const mode = "ok" in result ? Number((result.ok as { mode?: unknown }).mode) : Number.NaN;
    await finished(stream.output);
    const size = chunks.reduce((sum, { length }) => sum + length, 0);
    // Half of a file must not be written back as the whole.
    if (size >= FILE_MAX) throw new BangerError("GUEST_ERROR", `${path} in the guest is longer than ${FILE_MAX} bytes`);
    return { text: Buffer.concat(chunks).toString("latin1"), mode: Number.isInteger(mode) ? mode & 0o777 : 0o644 };
  } catch (error) {
    stream.abort();
    const code = error instanceof BangerError && error.code === "GUEST_ERROR" ? error.details?.code : undefined;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
};

const writeGuest = async (
  guest: GuestConnection,
  path: string,
  text: string,
  mode: number,
  progress: Progress,
): Promise<void> => {
  const bytes = Buffer.from(text, "latin1");
  const stream = guest.open({ op: "write", path, mode, uid: 0, gid: 0, parents: true, size: bytes.length });
  stream.output.resume();
  stream.errors.resume();
  stream.input.end(bytes);
  try {
    await abortable(stream.result, progress.signal);
  } catch (error) {
    stream.abort();
    throw error;
  }
};

const findBundle = async (
  guest: GuestConnection,
  progress: Progress,
): Promise<{ bundle: string; there: GuestFile | undefined }> => {
  for (const bundle of BUNDLES) {
    const there = await readGuest(guest, bundle, progress);
    if (there) return { bundle, there };
  }
  return { bundle: USUAL_BUNDLE, there: undefined };
};

/** @returns the file in which programs find it, beside all that they trusted before */
const trust = async (guest: GuestConnection, certificate: string, progress: Progress): Promise<string> => {
  const { bundle, there } = await findBundle(guest, progress);
  const before = there?.text ?? "";
  if (!before.includes(certificate.trim())) {
    const joint = before === "" || before.endsWith("\n") ? "" : "\n";
    await writeGuest(guest, bundle, `${before}${joint}${certificate}`, there?.mode ?? 0o644, progress);
  }
  await writeGuest(guest, ANCHOR, certificate, 0o644, progress);
  const others = await callGuest(guest, { op: "stat", path: OTHER_ANCHORS }, progress).catch(() => undefined);
  if (others) await writeGuest(guest, posix.join(OTHER_ANCHORS, "banger.crt"), certificate, 0o644, progress);
  return bundle;
};

/** @param bundle the file with what programs trust */
export const environmentFor = (secrets: readonly SecretRecord[], bundle: string): Record<string, string> => {
  if (secrets.length === 0) return {};
  const proxy = `http://127.0.0.1:${PROXY_PORT}`;
  const direct = "localhost,127.0.0.1,::1,.localhost,.vm";
  return {
    ...Object.fromEntries(secrets.map(({ name, placeholder }) => [name, placeholder])),
    HTTP_PROXY: proxy,
    HTTPS_PROXY: proxy,
    http_proxy: proxy,
    https_proxy: proxy,
    NO_PROXY: direct,
    no_proxy: direct,
    NODE_USE_ENV_PROXY: "1",
    NODE_EXTRA_CA_CERTS: bundle,
    SSL_CERT_FILE: bundle,
    REQUESTS_CA_BUNDLE: bundle,
    CURL_CA_BUNDLE: bundle,
    GIT_SSL_CAINFO: bundle,
  };
};

const BEGIN = "# banger: secrets of this VM (placeholders), do not edit";
const END = "# banger: end";

/** `/etc/environment` with the variables in one marked part of it, or without that part. */
export const environmentFile = (before: string, variables: Readonly<Record<string, string>>): string => {
  const start = before.indexOf(BEGIN);
  const end = before.indexOf(END, start);
  const rest =
    start < 0 || end < 0 ? before : before.slice(0, start) + before.slice(end + END.length).replace(/^\n/, "");
  const lines = Object.entries(variables).map(([name, value]) => `${name}=${value}\n`);
  if (lines.length === 0) return rest;
  return `${rest}${rest === "" || rest.endsWith("\n") ? "" : "\n"}${BEGIN}\n${lines.join("")}${END}\n`;
};

/**
 * Makes a guest one with these secrets, or one with none.
 * @param own what it has in its environment besides: the image's and the VM's
 * @param authority its certificate in PEM
 */
export const tellGuest = async (
  guest: GuestConnection,
  secrets: readonly SecretRecord[],
  own: { image: Readonly<Record<string, string>>; vm: Readonly<Record<string, string>> },
  authority: string,
  progress: Progress,
): Promise<void> => {
  const variables = secrets.length === 0 ? {} : environmentFor(secrets, await trust(guest, authority, progress));
  const file = await readGuest(guest, ENVIRONMENT, progress);
  const wanted = environmentFile(file?.text ?? "", variables);
  if (wanted !== (file?.text ?? "")) await writeGuest(guest, ENVIRONMENT, wanted, file?.mode ?? 0o644, progress);
  const env = { ...own.image, ...variables, ...own.vm };
  await callGuest(guest, { op: "configure", env, start_init: false, lazy: true }, progress);
};
