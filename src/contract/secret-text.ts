/** Secrets as they are written: `NAME@HOST[,HOST…]`, and which names, hosts, headers and values may be. */
import { BangerError } from "./errors.ts";
import { quoted } from "./names.ts";

/** Headers that a value is put into where none are named: those that carry credentials of APIs, registries and git servers. */
export const SECRET_HEADERS: readonly string[] = [
  "authorization",
  "x-api-key",
  "api-key",
  "x-auth-token",
  "x-access-token",
  "x-goog-api-key",
  "private-token",
  "job-token",
  "dd-api-key",
  "circle-token",
];

/** Where a value may go. */
export type SecretHost = {
  /** Without TLS: what is on the way can read it. */
  plain: boolean;
  /** `api.example.com`, `192.168.1.5`, or `*.example.com` for all below it. */
  name: string;
  port: number;
};

const NAME = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
/** What a shell, the proxy or banger itself needs to be what it is. */
const TAKEN =
  /^(?:path|home|user|logname|shell|term|lang|tmpdir|ld_.*|xdg_.*|banger_.*|notify_socket|docker_config|dbus_.*|(?:http|https|all|no)_proxy|node_(?:options|extra_ca_certs|use_env_proxy)|ssl_cert_file|requests_ca_bundle|curl_ca_bundle|git_ssl_cainfo)$/i;
const LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?";
const HOST = new RegExp(`^(?:\\*\\.${LABEL}(?:\\.${LABEL})+|${LABEL}(?:\\.${LABEL})*)$`);
const IPV4 = /^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$/;
const HEADER = /^[a-z0-9!#$%&'*+.^_`|~-]{1,64}$/;
/** They say where a request goes or where it ends, and are not credentials. */
const FRAMING =
  /^(?:host|connection|content-length|transfer-encoding|te|trailer|upgrade|expect|proxy-.*|content-encoding|accept-encoding)$/;

const refuse = (message: string, hint: string): never => {
  throw new BangerError("USAGE", message, { hint });
};

/** @throws USAGE */
export const checkSecretName = (name: string): string => {
  if (!NAME.test(name))
    refuse(
      `${quoted(name)} is not a valid name of a secret`,
      "it is an environment variable in the VM: letters, digits and _, such as GITHUB_TOKEN",
    );
  if (TAKEN.test(name))
    refuse(`a secret cannot be called ${name}`, "that variable means something else to programs: choose another name");
  return name;
};

/** A host's name or IPv4 address, in lower case and without a dot at its end; undefined for what is none. */
export const hostName = (text: string): string | undefined => {
  const name = text.toLowerCase().replace(/\.$/, "");
  if (name.length > 253 || !HOST.test(name) || name.startsWith("*")) return undefined;
  // What ends in a number is an address, and there is one way to write it.
  return /(?:^|\.)(?:\d+|0x[0-9a-f]*)$/.test(name) && !IPV4.test(name) ? undefined : name;
};

/** @throws USAGE */
export const parseSecretHost = (text: string): SecretHost => {
  const [, scheme, written = "", digits] = /^(https?:\/\/)?([^:/]+)(?::(\d{1,5}))?$/i.exec(text) ?? [];
  const plain = scheme?.toLowerCase() === "http://";
  const port = digits === undefined ? (plain ? 80 : 443) : Number(digits);
  const lower = written.toLowerCase();
  const name = lower.startsWith("*.") && HOST.test(lower) ? lower : hostName(written);
  if (name === undefined || port < 1 || port > 65535)
    return refuse(
      `${quoted(text)} is not a host that a secret can be for`,
      "write its name, as api.example.com, api.example.com:8443, *.example.com for all below it, or http://HOST for one without TLS",
    );
  return { plain, name, port };
};

/** As short as it can be written. */
export const formatSecretHost = ({ plain, name, port }: SecretHost): string =>
  `${plain ? "http://" : ""}${name}${port === (plain ? 80 : 443) ? "" : `:${port}`}`;

/** @param to a host's name as `hostName` gives it */
export const isFor = (host: SecretHost, to: SecretHost): boolean =>
  host.plain === to.plain &&
  host.port === to.port &&
  (host.name.startsWith("*.") ? to.name.endsWith(host.name.slice(1)) : host.name === to.name);

/** @throws USAGE */
export const checkSecretHosts = (hosts: readonly string[]): string[] => {
  if (hosts.length === 0 || hosts.length > 100)
    refuse("a secret is for 1 to 100 hosts", "name those that may get it: NAME@api.example.com");
  return [...new Set(hosts.map((host) => formatSecretHost(parseSecretHost(host))))];
};

/** @throws USAGE @returns in lower case */
export const checkSecretHeaders = (headers: readonly string[]): string[] => {
  const wanted = [...new Set(headers.map((header) => header.toLowerCase()))];
  if (wanted.length === 0 || wanted.length > 32)
    refuse("a secret goes into 1 to 32 headers", "name them, as X-Api-Key");
  for (const header of wanted)
    if (!HEADER.test(header) || FRAMING.test(header))
      refuse(`${quoted(header)} is not a header that a secret can go into`, "name a header, as X-Api-Key");
  return wanted;
};

const SHORTEST = 8;
const LONGEST = 16 * 1024;

/**
 * @param text as it was read from a file or the environment
 * @throws USAGE without the value
 * @returns without the line break at its end
 */
export const checkSecretValue = (name: string, text: string): string => {
  const value = text.replace(/\r?\n$/, "");
  if (value.length < SHORTEST || value.length > LONGEST)
    refuse(
      `the value of ${name} has ${value.length} characters`,
      `a secret has ${SHORTEST} to ${LONGEST}: a shorter one would be found by chance in what servers answer`,
    );
  if (!/^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(value))
    refuse(
      `the value of ${name} cannot stand in a header`,
      "it may hold printable ASCII characters only, on one line, without spaces around it",
    );
  return value;
};

/** `NAME@HOST[,HOST…]`; without `@`, no hosts. @throws USAGE */
export const parseSecret = (text: string): { name: string; hosts: string[] | undefined } => {
  const at = text.indexOf("@");
  // Not told again: what stands there may be the value.
  if (/^[^@]*=/.test(text))
    return refuse(
      "a secret's value does not stand on a command line, where others can see it",
      "write NAME@HOST: the value is your variable NAME",
    );
  if (at < 0) return { name: checkSecretName(text), hosts: undefined };
  return { name: checkSecretName(text.slice(0, at)), hosts: checkSecretHosts(text.slice(at + 1).split(",")) };
};
