/** A UDP port of the host that leads into a guest: a stream to the guest for each peer, for as long as it has something to say. */
import { createSocket, type RemoteInfo } from "node:dgram";
import { isIPv6 } from "node:net";
import { datagramDecoder, encodeDatagram } from "../../guest/dial.ts";
import type { GuestStream } from "../../guest/stream.ts";
import type { Listening } from "./tcp.ts";

/** A peer that has been silent for so long is forgotten, in ms. */
const SILENCE = 60_000;
/** Peers at once; the one that has been silent longest makes room for another. */
const MAX_PEERS = 1024;
/** Bytes that wait for one peer's stream; what comes beyond that is lost, as on any wire. */
const MAX_WAITING = 256 * 1024;

type Peer = {
  /** ms since 1970. */
  heard: number;
  stream: GuestStream | undefined;
  /** Datagrams that came before there was a stream. */
  waiting: Uint8Array[];
  bytes: number;
};

/**
 * @param open makes a stream to the guest, its `errors` taken care of; what it throws means that the peer's datagrams are lost
 * @throws the system's error: EADDRINUSE, EACCES, EADDRNOTAVAIL
 */
export const listenUdp = async (
  address: string,
  port: number,
  open: () => Promise<GuestStream>,
): Promise<Listening> => {
  const socket = createSocket({ type: isIPv6(address) ? "udp6" : "udp4" });
  /** In the order in which they were heard last. */
  const peers = new Map<string, Peer>();
  let sweeping: NodeJS.Timeout | undefined;

  const forget = (key: string) => {
    peers.get(key)?.stream?.abort();
    peers.delete(key);
  };

  /** Ends those that are silent, and comes again when the next of them may be. */
  const sweep = () => {
    const now = Date.now();
    for (const [key, { heard }] of peers) {
      if (now - heard < SILENCE) break;
      forget(key);
    }
    const [oldest] = peers.values();
    sweeping = oldest && setTimeout(sweep, oldest.heard + SILENCE - now);
    sweeping?.unref();
  };

  const heard = (key: string, peer: Peer) => {
    peer.heard = Date.now();
    peers.delete(key);
    peers.set(key, peer);
  };

  const connect = async (key: string, peer: Peer, { address: to, port: toPort }: RemoteInfo): Promise<void> => {
    const stream = await open();
    if (peers.get(key) !== peer) return stream.abort();
    peer.stream = stream;
    const decode = datagramDecoder((datagram) => {
      if (peers.get(key) !== peer) return;
      heard(key, peer);
      // A peer that cannot be reached any more is no concern of the others.
      socket.send(datagram, toPort, to, () => undefined);
    });
    stream.output.on("data", decode);
    const over = () => {
      if (peers.get(key) === peer) peers.delete(key);
    };
    stream.result.then(over, over);
    for (const datagram of peer.waiting.splice(0)) stream.input.write(datagram);
  };

  const newPeer = (key: string, from: RemoteInfo): Peer => {
    const [oldest] = peers.keys();
    if (peers.size >= MAX_PEERS && oldest !== undefined) forget(oldest);
    const peer: Peer = { heard: 0, stream: undefined, waiting: [], bytes: 0 };
    peers.set(key, peer);
    connect(key, peer, from).catch(() => {
      if (peers.get(key) === peer) peers.delete(key);
    });
    return peer;
  };

  socket.on("message", (message, from) => {
    const key = `${from.address} ${from.port}`;
    const peer = peers.get(key) ?? newPeer(key, from);
    heard(key, peer);
    const datagram = encodeDatagram(message);
    if (peer.stream) {
      if (peer.stream.input.writableLength < MAX_WAITING) peer.stream.input.write(datagram);
    } else if (peer.bytes + datagram.length <= MAX_WAITING) {
      peer.bytes += datagram.length;
      peer.waiting.push(datagram);
    }
    if (!sweeping) sweep();
  });

  await new Promise<void>((resolve, reject) => {
    socket.once("error", reject);
    socket.bind({ address, port, exclusive: true }, resolve);
  });
  // An ICMP answer of one peer, say.
  socket.on("error", () => undefined);
  return {
    port: socket.address().port,
    close: () => {
      clearTimeout(sweeping);
      for (const key of [...peers.keys()]) forget(key);
      socket.close();
    },
  };
};
