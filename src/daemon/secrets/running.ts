/** The proxy of one VM that runs: over its guest's channel on one side, by its network's rules on the other. */
import { createSecureContext, getCACertificates, type SecureContext } from "node:tls";
import { callGuest } from "../../guest/call.ts";
import { acceptFromGuest } from "../../guest/accept.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import { silentProgress } from "../../contract/progress.ts";
import type { Log } from "../log.ts";
import { outgoing } from "../network/outgoing.ts";
import type { NetworkRules } from "../network/rules-file.ts";
import { networkTold } from "../network/told.ts";
import { askGuest, soon } from "../network/owner.ts";
import type { VmRow } from "../store/vms.ts";
import type { Authority } from "./authority.ts";
import { PROXY_PORT } from "./guest.ts";
import { secretsProxy } from "./proxy.ts";
import { type KnownSecret, knownSecret } from "./put-in.ts";
import { readValues, withValues } from "./values.ts";

/** Connections of one guest at once; others wait in its kernel. */
const CONNECTIONS_MAX = 512;

let roots: SecureContext | undefined;
/** Node's own, this machine's, and those that NODE_EXTRA_CA_CERTS names. */
const hostRoots = (): SecureContext => {
  roots ??= createSecureContext({
    ca: [...new Set([...getCACertificates("default"), ...getCACertificates("system")])],
  });
  return roots;
};

export type Running = {
  /** The secrets have changed. */
  reload(): Promise<void>;
  /** The rules of the network have changed. */
  judgeAgain(): Promise<void>;
  close(): void;
};

export type RunningParts = {
  row(): VmRow;
  guest: GuestConnection;
  log: Log;
  networkOf(row: VmRow): NetworkRules;
  authority: Authority;
};

/** @returns once the guest's programs can connect @throws GUEST_ERROR where its port is taken, GUEST_AGENT_LOST, STATE_DAMAGED */
export const runProxy = async ({ row, guest, log, networkOf, authority }: RunningParts): Promise<Running> => {
  let secrets: readonly KnownSecret[] = [];
  const { id, name } = row();
  const reload = async (): Promise<void> => {
    const found = withValues(row().secrets, await readValues(id));
    secrets = found.map(({ record, value }) => knownSecret(record, value));
  };
  await reload();
  const tell = networkTold(id, log);
  const outwards = outgoing(() => networkOf(row()), tell);
  const proxy = secretsProxy({ secrets: () => secrets, outgoing: outwards, roots: hostRoots, authority, tell });
  const whose = (peer: number) => async (): Promise<string> => {
    using limited = soon();
    return await askGuest(guest, { proto: "tcp", port: peer, to: PROXY_PORT }, limited).catch((error: unknown) => {
      log.debug("not known whose a refused request was", { vm: name, error });
      return "";
    });
  };
  const accepting = acceptFromGuest(guest, {
    port: PROXY_PORT,
    most: CONNECTIONS_MAX,
    serve: (connection, peer) => proxy.serve(connection, peer === undefined ? undefined : whose(peer)),
  });
  const close = () => {
    accepting.close();
    proxy.close();
    outwards.close();
  };
  accepting.ended.catch((error: unknown) => {
    log.debug("proxy of a VM has ended", { vm: name, error });
    close();
  });
  try {
    // The agent answers in order: by then it listens, or has said why it cannot.
    await Promise.race([accepting.ended, callGuest(guest, { op: "metrics" }, silentProgress())]);
  } catch (error) {
    close();
    throw error;
  }
  return { reload, judgeAgain: outwards.judgeAgain, close };
};
