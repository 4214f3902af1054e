/** The one error shape of banger: a closed table of codes, each with its HTTP status, exit status and owner. */

type ErrorKind = {
  /** Status of an API answer that carries this error. */
  http: number;
  /** Exit status of the CLI. */
  exit: number;
  /** `user`: something to correct outside banger. `bug`: something to report. */
  owner: "user" | "bug";
};

const user = (http: number, exit = 1): ErrorKind => ({ http, exit, owner: "user" });

export const errorTable = {
  USAGE: user(400, 2),
  INVALID_REQUEST: user(400, 2),
  INVALID_CONFIG: user(400),
  CANCELLED: user(499, 130),
  VM_NOT_FOUND: user(404),
  VM_AMBIGUOUS: user(409),
  VM_NAME_TAKEN: user(409),
  VM_WRONG_STATE: user(409),
  VM_BOOT_FAILED: user(502),
  VM_BOOT_TIMEOUT: user(504),
  VM_STOPPED: user(409),
  GUEST_AGENT_LOST: user(502),
  GUEST_PROTOCOL: user(502),
  GUEST_ERROR: user(422),
  EXEC_NOT_FOUND: user(422, 127),
  EXEC_NOT_EXECUTABLE: user(422, 126),
  IMAGE_NOT_FOUND: user(404),
  IMAGE_IN_USE: user(409),
  IMAGE_EXISTS: user(409),
  IMAGE_CORRUPT: user(422),
  IMAGE_BUILD_FAILED: user(502),
  IMAGE_INVALID: user(422),
  IMAGE_TOO_LARGE: user(413),
  /** Its content could not be an honest image, or is more than banger takes. */
  IMAGE_REFUSED: user(422),
  /** It is made for other machines only. */
  IMAGE_PLATFORM: user(422),
  BUNDLE_INVALID: user(422),
  CATALOG_INVALID: user(422),
  DOWNLOAD_FAILED: user(502),
  REGISTRY_UNREACHABLE: user(502),
  REGISTRY_AUTH: user(401),
  REGISTRY_ERROR: user(502),
  KERNEL_NOT_FOUND: user(404),
  KERNEL_IN_USE: user(409),
  KERNEL_EXISTS: user(409),
  KERNEL_CORRUPT: user(422),
  KERNEL_BUILD_FAILED: user(502),
  MIRROR_UNREACHABLE: user(502),
  MIRROR_UNTRUSTED: user(502),
  /** A template, a snapshot or a sleeping VM is not what was saved. */
  SAVED_CORRUPT: user(422),
  /** A saved machine was saved with another VMM, CPU or kernel. */
  SAVED_FOREIGN: user(409),
  SNAPSHOT_NOT_FOUND: user(404),
  SNAPSHOT_NAME_TAKEN: user(409),
  TOOL_MISSING: user(424),
  TOOL_FAILED: user(502),
  DISK_FULL: user(507),
  HOST_LIMIT: user(507),
  FILE_NOT_FOUND: user(404),
  FILE_REFUSED: user(403),
  SSH_KEY: user(422),
  /** A port of the host is taken. */
  PORT_IN_USE: user(409),
  /** A port or an address of the host cannot be had. */
  PORT_REFUSED: user(403),
  PORT_NOT_FOUND: user(404),
  /** What a VM may not reach. Told to programs in the guest too, as is what follows. */
  NET_REFUSED: user(403),
  /** A secret was sent where it must not go, or as it cannot be put in. */
  SECRET_REFUSED: user(403),
  /** A server on the way out does not answer, or is not who it should be. */
  UPSTREAM_FAILED: user(502),
  SECRET_NOT_FOUND: user(404),
  /** What was given is no repository that can be brought in. */
  WORKSPACE_REFUSED: user(422),
  /** Both sides have changed the same. */
  WORKSPACE_CONFLICT: user(409),
  OPERATION_NOT_FOUND: user(404),
  DAEMON_UNREACHABLE: user(503),
  DAEMON_START_FAILED: user(503),
  SERVICE_UNAVAILABLE: user(503),
  STATE_NEWER: user(409),
  STATE_DAMAGED: user(500),
  INTERNAL: { http: 500, exit: 1, owner: "bug" },
} as const satisfies Record<string, ErrorKind>;

export type ErrorCode = keyof typeof errorTable;

export type ErrorOptions = {
  /** What to do next, as a sentence or an exact command. */
  hint?: string | undefined;
  /** Facts for programs: names, paths, limits. */
  details?: Record<string, unknown> | undefined;
  cause?: unknown;
};

/** What banger throws. `message` says what happened, `hint` what to do about it. */
export class BangerError extends Error {
  override readonly name = "BangerError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly details: Record<string, unknown> | undefined;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.details = options.details;
  }
}

/** An error as it crosses the API. */
export type ErrorBody = {
  code: ErrorCode;
  message: string;
  hint?: string | undefined;
  details?: Record<string, unknown> | undefined;
};

/** SQLite's own number for a full disk. */
const SQLITE_FULL = 13;

const isSqliteFull = (thrown: unknown): boolean =>
  typeof thrown === "object" && thrown !== null && "errcode" in thrown && thrown.errcode === SQLITE_FULL;

const isErrorCode = (code: unknown): code is ErrorCode => typeof code === "string" && Object.hasOwn(errorTable, code);

/** Any thrown value as a `BangerError`: a full disk is named, anything unforeseen becomes INTERNAL. */
export const toBangerError = (thrown: unknown): BangerError => {
  if (thrown instanceof BangerError) return thrown;
  const code = errnoOf(thrown);
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  if (code === "ENOSPC" || code === "EDQUOT" || isSqliteFull(thrown)) {
    return new BangerError("DISK_FULL", `the disk is full: ${message}`, {
      hint: "free some space (`banger vm prune -f`, `banger image list`) and run the command again",
      cause: thrown,
    });
  }
  if (thrown instanceof Error && thrown.name === "AbortError") {
    return thrown.cause instanceof BangerError
      ? thrown.cause
      : new BangerError("CANCELLED", "cancelled", { cause: thrown });
  }
  return new BangerError("INTERNAL", message, { cause: thrown });
};

export const toErrorBody = (thrown: unknown): ErrorBody => {
  const { code, message, hint, details } = toBangerError(thrown);
  return { code, message, ...(hint === undefined ? {} : { hint }), ...(details === undefined ? {} : { details }) };
};

/** The error that an API body describes; an unknown code (a newer daemon) becomes INTERNAL. */
export const fromErrorBody = (body: unknown): BangerError => {
  const { code, message, hint, details } = (body ?? {}) as Partial<ErrorBody>;
  return new BangerError(
    isErrorCode(code) ? code : "INTERNAL",
    typeof message === "string" ? message : "unknown error",
    {
      hint,
      details,
    },
  );
};

/** The errno name of a Node system error (`ENOENT`), if it has one. */
export const errnoOf = (thrown: unknown): string | undefined => {
  if (typeof thrown !== "object" || thrown === null || !("code" in thrown)) return undefined;
  return typeof thrown.code === "string" ? thrown.code : undefined;
};

/** The nearest of `candidates` to a mistyped or shortened `name`, or undefined when none is near. */
export const nearest = (name: string, candidates: Iterable<string>): string | undefined => {
  const all = [...candidates];
  const longer = name.length > 1 ? all.filter((candidate) => candidate.startsWith(name)) : [];
  return spelledLike(name, all) ?? (longer.length === 1 ? longer[0] : undefined);
};

const spelledLike = (name: string, candidates: readonly string[]): string | undefined => {
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(name.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(name, candidate);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
};

/** Letters to change, add, leave out or swap with their neighbour. */
const editDistance = (a: string, b: string): number => {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swap = swapped ? (before[j - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY;
      next.push(Math.min(change, swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    [before, row] = [row, next];
  }
  return row[b.length] ?? 0;
};
