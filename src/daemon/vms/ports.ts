/** Sockets in a guest that wait for connections or datagrams, with what reaches them on the host. */
import type { Published } from "../../contract/published.ts";
import type { Progress } from "../../contract/progress.ts";
import type { GuestPort } from "../../contract/vms.ts";
import { callGuest } from "../../guest/call.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import { LISTENERS, type Listener, parseListeners, protocolOf } from "../network/listeners.ts";

/**
 * @returns what listens; one port with several sockets is told once
 * @throws GUEST_PROTOCOL when the guest's answer makes no sense
 */
export const guestListeners = async (guest: GuestConnection, progress: Progress): Promise<Listener[]> => {
  const seen = new Map<string, Listener>();
  for (const listener of parseListeners(await callGuest(guest, LISTENERS, progress))) {
    const key = `${listener.proto} ${listener.address} ${listener.port}`;
    if (!seen.has(key)) seen.set(key, listener);
  }
  return [...seen.values()];
};

/** By port: what listens, then what is published although nothing is known to. */
export const withPublished = (listeners: readonly Listener[], published: readonly Published[]): GuestPort[] => {
  const heard: GuestPort[] = listeners.map((listener) => ({
    ...listener,
    published: published.filter(({ proto, guest }) => guest === listener.port && proto === protocolOf(listener)),
  }));
  const listening = new Set(listeners.map((listener) => `${protocolOf(listener)} ${listener.port}`));
  const others = published.filter(({ proto, guest }) => !listening.has(`${proto} ${guest}`));
  const keys = new Set(others.map(({ proto, guest }) => `${proto} ${guest}`));
  const silent: GuestPort[] = [...keys].map((key) => {
    const [proto = "", port = ""] = key.split(" ");
    const these = others.filter((other) => other.proto === proto && other.guest === Number(port));
    return { proto: proto === "udp" ? "udp" : "tcp", port: Number(port), published: these };
  });
  return [...heard, ...silent].sort((a, b) => a.port - b.port || a.proto.localeCompare(b.proto));
};
