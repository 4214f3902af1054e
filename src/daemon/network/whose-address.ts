/**
 * Whose an address is: of the host alone, of somebody's own network, or of the world. As agent/src/host/address.rs has it for packets: both are tested by
 * test/support/address-vectors.json.
 */
import { isIPv4 } from "node:net";
import { groupsOf } from "../../contract/net-rules.ts";

/** By its number: 32 bits of IPv4, 128 of IPv6. */
export type Address = { six: boolean; value: bigint };
export type Network = Address & { bits: number };

/** @returns undefined for what is no address */
export const addressOf = (text: string): Address | undefined => {
  if (isIPv4(text))
    return { six: false, value: text.split(".").reduce((sum, octet) => sum * 256n + BigInt(octet), 0n) };
  const groups = groupsOf(text);
  return groups && { six: true, value: groups.reduce((sum, group) => sum * 65_536n + BigInt(group), 0n) };
};

/** @param text `192.168.1.7/24`, `2001:db8::/32`; undefined for what is no network */
export const networkOf = (text: string): Network | undefined => {
  const [, base = "", bits] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? [];
  const address = addressOf(base);
  return address && { ...address, bits: Number(bits) };
};

/** `0.0.0.0/0` holds all addresses, of IPv6 too. */
export const holds = ({ six, value, bits }: Network, address: Address): boolean => {
  if (six !== address.six) return !six && bits === 0;
  const below = BigInt((six ? 128 : 32) - bits);
  return value >> below === address.value >> below;
};

const networks = (...texts: readonly string[]): Network[] => texts.flatMap((text) => networkOf(text) ?? []);

/** Loopback, "this host", link-local, IPv4 in IPv6's clothes, the metadata services of clouds; and the guest's own network. */
export const NEVER: readonly Network[] = networks(
  "127.0.0.0/8",
  "0.0.0.0/8",
  "169.254.0.0/16",
  "168.63.129.16/32",
  "100.100.100.200/32",
  "192.0.0.192/32",
  "::/96",
  "::ffff:0:0/96",
  "0:0:0:0:ffff::/96",
  "fe80::/10",
  "fd00:c1::/32",
  "fd00:ec2::/32",
  "fd20:ce::/32",
  "10.0.2.0/24",
  "fd62:616e:6765:7200::/64",
);
export const PRIVATE: readonly Network[] = networks(
  "10.0.0.0/8",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "100.64.0.0/10",
  "198.18.0.0/15",
  "192.0.0.0/24",
  "fc00::/7",
  "fec0::/10",
  "64:ff9b:1::/48",
);
/** Multicast, what is reserved, and broadcast. */
const GROUPS = networks("224.0.0.0/3", "ff00::/8");
/** Prefixes of IPv6 addresses that lead to an IPv4 address in them: NAT64 (RFC 6052), 6to4 (RFC 3056), Teredo (RFC 4380). */
const [NAT64, SIX_TO_FOUR, TEREDO] = networks("64:ff9b::/96", "2002::/16", "2001::/32");

const ALL_ONES = 0xffff_ffffn;

/** IPv4 addresses that packets to this address may end up at. */
const embedded = (address: Address): Address[] => {
  const at = (shift: bigint, turn = 0n) => ({ six: false, value: ((address.value >> shift) & ALL_ONES) ^ turn });
  if (!address.six) return [];
  if (NAT64 && holds(NAT64, address)) return [at(0n)];
  if (SIX_TO_FOUR && holds(SIX_TO_FOUR, address)) return [at(80n)];
  // Its server, and its client with all bits turned.
  if (TEREDO && holds(TEREDO, address)) return [at(64n), at(0n, ALL_ONES)];
  return [];
};

/** As `holds`, also for IPv4 addresses that an IPv6 address leads to. */
export const mayHold = (network: Network, address: Address): boolean =>
  [address, ...embedded(address)].some((one) => holds(network, one));

const isIn = (list: readonly Network[], address: Address): boolean => list.some((network) => mayHold(network, address));

/** What no guest may reach, whatever its rules say. */
export const isNever = (address: Address): boolean => isIn(NEVER, address) || isIn(GROUPS, address);

/** What is somebody's own, or the host's. @param local networks that it is on */
export const isNear = (address: Address, local: readonly Network[]): boolean =>
  isIn(local, address) || isIn(PRIVATE, address);
