/** How published ports are written: `[[ADDRESS:]HOST:]GUEST[/udp]`. */
import { BangerError } from "./errors.ts";
import { ADDRESS, quoted } from "./names.ts";
import type { Publish } from "./published.ts";

const refuse = (text: string, hint = "write [[ADDRESS:]HOST:]GUEST[/udp], such as 80, 8080:80 or 53/udp"): never => {
  throw new BangerError("USAGE", `${quoted(text)} is not a port to publish`, { hint });
};

const portNumber = (digits: string, least: number, text: string): number => {
  const port = /^\d{1,5}$/.test(digits) ? Number(digits) : Number.NaN;
  return port >= least && port <= 65535 ? port : refuse(text, `a port is a number from ${least} to 65535`);
};

/**
 * Reads what stands after `--publish`.
 * @throws USAGE
 */
export const parsePublish = (text: string): Publish => {
  const match = /^(?:(?:\[([^\]]+)\]|([^:[\]]+)):(?=[^:]*:))?(?:([^:]*):)?([^:/]+)(?:\/(tcp|udp))?$/.exec(text);
  if (!match) return refuse(text);
  const [, bracketed, plain, host, guest = "", proto = "tcp"] = match;
  const at = bracketed ?? plain;
  if (at !== undefined && !ADDRESS.test(at)) refuse(text, "the address must be an IP address of this machine");
  return {
    proto: proto === "udp" ? "udp" : "tcp",
    guest: portNumber(guest, 1, text),
    ...(host === undefined ? {} : { host: portNumber(host, 0, text) }),
    ...(at === undefined ? {} : { address: at }),
  };
};

/** `127.77.1.2:8080`, `[::1]:8080` */
export const formatHostPort = (address: string, port: number): string =>
  address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;

/** As it is written on a command line, without the address: `8080:80`, `53/udp`. */
export const formatPublish = ({
  proto,
  guest,
  host,
}: {
  proto: string;
  guest: number;
  host?: number | undefined;
}): string => `${host === undefined || host === guest ? guest : `${host}:${guest}`}${proto === "udp" ? "/udp" : ""}`;
