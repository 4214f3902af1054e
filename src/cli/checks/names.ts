/** `NAME.vm`: banger's DNS server and the resolver's way to it. */
import { lookup, Resolver } from "node:dns/promises";
import type { Config } from "../../contract/config.ts";
import { formatHostPort } from "../../contract/ports.ts";
import { portOwners } from "../../host/port-owner.ts";
import { advise, asRoot, type Check, pass, warn } from "./check.ts";
import { resolverKind, routesTo, setUp } from "./resolver.ts";

/** A name that no VM can have; the daemon's DNS server has this address for it. */
const PROBE = "_banger.vm";
const PROBE_ADDRESS = "127.0.0.1";
const DEFAULT_PORT = 42069;
/** How long the server may take to answer, in ms. */
const PATIENCE = 1000;

const answers = async (address: string, port: number): Promise<boolean> => {
  const resolver = new Resolver({ timeout: PATIENCE, tries: 1 });
  resolver.setServers([formatHostPort(address, port)]);
  const found: string[] = await resolver.resolve4(PROBE).catch(() => []);
  return found.includes(PROBE_ADDRESS);
};

const isRouted = async (): Promise<boolean> => {
  const found = await lookup(PROBE, { family: 4 }).catch(() => undefined);
  return found?.address === PROBE_ADDRESS;
};

const look = async (dns: Config["network"]["dns"]) => {
  if (!dns) {
    const off = "`network.dns` is off: NAME.vm is known to ssh alone";
    const [stale] = await routesTo(DEFAULT_PORT);
    if (stale === undefined) return pass(off);
    return warn(`${off}, but ${stale} leads there: names below .vm time out`, asRoot("rm", stale));
  }
  const at = formatHostPort(dns.address, dns.port);
  if (dns.port === 0) return pass("`network.dns` has any free port: NAME.vm is known to those who ask there");
  const [answered, [owner]] = await Promise.all([answers(dns.address, dns.port), portOwners("udp", dns.port)]);
  const another = "set another `network.dns` in config.toml";
  if (answered && !owner)
    return advise(warn(`the banger of another user answers at ${at}: NAME.vm is known to ssh alone`), another);
  if (!answered && owner)
    return advise(
      warn(`port ${dns.port} is taken by ${owner.name} (process ${owner.pid}): NAME.vm is known to ssh alone`),
      `end that program, or ${another}`,
    );
  if (!answered) return pass(`the daemon answers for NAME.vm at ${at} while it runs; it does not now`);
  if (await isRouted()) return pass(`the daemon answers for NAME.vm at ${at}, and this machine's resolver asks it`);
  const kind = await resolverKind();
  return advise(
    warn(`the daemon answers for NAME.vm at ${at}, but this machine's resolver (${kind}) does not ask it`),
    setUp(kind, dns.address, dns.port),
  );
};

export const nameChecks = (config: Config | undefined): Check[] =>
  config ? [{ name: "names", look: () => look(config.network.dns) }] : [];
