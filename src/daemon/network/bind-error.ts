/** Why a port of the host cannot be published, and what to do. */
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { formatHostPort, formatPublish } from "../../contract/ports.ts";
import { portOwners } from "../../host/port-owner.ts";
import type { RecordedPort } from "../store/vms.ts";

/** What to add to a privileged port for one that anybody may have: 8080 for 80, 8443 for 443. */
export const UNPRIVILEGED = 8000;

const LAST_PRIVILEGED = 1023;

type Where = { vm: string; address: string; spec: RecordedPort };

const inUse = async ({ vm, address, spec }: Where, otherVm: string | undefined): Promise<BangerError> => {
  const at = formatHostPort(address, spec.host);
  const free = `banger vm publish ${vm} ${formatPublish({ ...spec, host: 0 })}`;
  const owners =
    otherVm === undefined ? (await portOwners(spec.proto, spec.host)).filter(({ pid }) => pid !== process.pid) : [];
  const who =
    otherVm !== undefined
      ? `VM ${otherVm}`
      : owners.length > 0
        ? owners.map(({ name, pid }) => `${name} (process ${pid})`).join(" and ")
        : "a process of another user";
  const [owner] = owners;
  const end =
    otherVm !== undefined
      ? `banger vm unpublish ${otherVm} --all`
      : owner
        ? `kill ${owner.pid}`
        : `sudo ss -lpn sport = :${spec.host}`;
  return new BangerError("PORT_IN_USE", `${at} is in use by ${who}`, {
    hint: `take a port that is free: ${free}\n  or see to that one: ${end}`,
    details: { address, port: spec.host, proto: spec.proto },
  });
};

/**
 * @param error of the attempt to listen
 * @param otherVm the VM that has the port, where it is one
 */
export const bindError = async (error: unknown, where: Where, otherVm: string | undefined): Promise<unknown> => {
  const { vm, address, spec } = where;
  const code = errnoOf(error);
  if (code === "EADDRINUSE") return inUse(where, otherVm);
  if (code === "EACCES" && spec.host <= LAST_PRIVILEGED) {
    const other = formatPublish({ ...spec, host: spec.host + UNPRIVILEGED });
    return new BangerError("PORT_REFUSED", `port ${spec.host} of this machine is for root only`, {
      hint: `take another one: banger vm publish ${vm} ${other}`,
      cause: error,
    });
  }
  if (code === "EADDRNOTAVAIL" || code === "EINVAL" || code === "ENOTFOUND")
    return new BangerError("PORT_REFUSED", `${address} is no address of this machine`, {
      hint: "leave the address out to publish on the VM's own, or see those of this machine: ip -br address",
      cause: error,
    });
  if (code === undefined) return error;
  return new BangerError("PORT_REFUSED", `cannot listen on ${formatHostPort(address, spec.host)}: ${code}`, {
    hint: `take another port: banger vm publish ${vm} ${formatPublish({ ...spec, host: 0 })}`,
    cause: error,
  });
};
