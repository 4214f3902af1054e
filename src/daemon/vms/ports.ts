/** Sockets in a guest that wait for connections, with what reaches them on the host. */
import type { Published } from "../../contract/published.ts";
import type { Progress } from "../../contract/progress.ts";
import type { GuestPort } from "../../contract/vms.ts";
import { callGuest } from "../../guest/call.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import { type Listener, parseListeners } from "../network/listeners.ts";

/**
 * @returns what listens; one port with several sockets is told once
 * @throws GUEST_PROTOCOL when the guest's answer makes no sense
 */
export const guestListeners = async (guest: GuestConnection, progress: Progress): Promise<Listener[]> => {
  const seen = new Map<string, Listener>();
  for (const listener of parseListeners(await callGuest(guest, { op: "listeners" }, progress))) {
    const key = `${listener.proto} ${listener.address} ${listener.port}`;
    if (!seen.has(key)) seen.set(key, listener);
  }
  return [...seen.values()];
};

/** By port: what listens, then what is published although nothing is known to. */
export const withPublished = (listeners: readonly Listener[], published: readonly Published[]): GuestPort[] => {
  const tcp = published.filter(({ proto }) => proto === "tcp");
  const heard: GuestPort[] = listeners.map((listener) => ({
    ...listener,
    published: tcp.filter(({ guest }) => guest === listener.port),
  }));
  const listening = new Set(listeners.map(({ port }) => port));
  const others = published.filter(({ proto, guest }) => proto === "udp" || !listening.has(guest));
  const keys = new Set(others.map(({ proto, guest }) => `${proto} ${guest}`));
  const silent: GuestPort[] = [...keys].map((key) => {
    const [proto = "", port = ""] = key.split(" ");
    const these = others.filter((other) => other.proto === proto && other.guest === Number(port));
    return { proto: proto === "udp" ? "udp" : "tcp", port: Number(port), published: these };
  });
  return [...heard, ...silent].sort((a, b) => a.port - b.port || a.proto.localeCompare(b.proto));
};
