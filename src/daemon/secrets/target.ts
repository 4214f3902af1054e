/** Where a request is for: what it says in several places must agree. */
import type { IncomingMessage } from "node:http";
import { BangerError } from "../../contract/errors.ts";
import { quoted } from "../../contract/names.ts";
import { formatSecretHost, hostName, type SecretHost } from "../../contract/secret-text.ts";

const malformed = (message: string, hint: string): never => {
  throw new BangerError("INVALID_REQUEST", message, { hint });
};

/** @param text `example.org:443`, `[2001:db8::1]:443` */
const authorityOf = (text: string, defaultPort: number | undefined): Omit<SecretHost, "plain"> => {
  const [, host = "", six, digits] = /^([^:@/?#[\]]+|\[([\da-f:.]+)\])(?::(\d{1,5}))?$/i.exec(text) ?? [];
  const name = six === undefined ? hostName(host) : URL.parse(`http://${host}`)?.hostname.slice(1, -1);
  const port = digits === undefined ? defaultPort : Number(digits);
  if (name === undefined || port === undefined || port < 1 || port > 65535)
    return malformed(
      `${quoted(text)} is no host and port`,
      "a name or an address, and a port, is what can be reached from here",
    );
  return { name, port };
};

/** The one Host of a request, which must be the host that it goes to. @throws INVALID_REQUEST, SECRET_REFUSED */
export const checkHost = ({ rawHeaders }: IncomingMessage, to: SecretHost): void => {
  const hosts = rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === "host");
  const [host, ...more] = hosts;
  if (host === undefined || more.length > 0)
    return malformed(`the request has ${hosts.length} Host headers`, "it must have one");
  const { name, port } = authorityOf(host, to.plain ? 80 : 443);
  if (name !== to.name || port !== to.port)
    throw new BangerError("SECRET_REFUSED", `the request is for ${quoted(host)}, and goes to ${formatSecretHost(to)}`, {
      hint: "send it to the host that it names",
      details: { host: to.name, port: to.port },
    });
};

/** Of a CONNECT. */
export const tunnelTarget = (request: IncomingMessage): SecretHost => ({
  plain: false,
  ...authorityOf(request.url ?? "", undefined),
});

/** Of a request to a proxy, which names its whole address. @throws INVALID_REQUEST, SECRET_REFUSED */
export const plainTarget = (request: IncomingMessage): { to: SecretHost; path: string } => {
  const [, authority, path = ""] = /^http:\/\/([^/?#]+)([/?][^#]*)?$/i.exec(request.url ?? "") ?? [];
  if (authority === undefined)
    return malformed(
      "this is the proxy of a banger VM, and no server",
      "it takes CONNECT, and requests for http:// addresses",
    );
  const to = { plain: true, ...authorityOf(authority, 80) };
  checkHost(request, to);
  return { to, path: path.startsWith("/") ? path : `/${path}` };
};
