/** What a test tells the stand-in, by a file that its launcher names. */
export type FakeSettings = {
  /** As `--version` says it. */
  version?: string;
  /** Calls, as `METHOD /path`, that are refused. */
  refuse?: readonly string[];
  /** Call at which it dies before it answers; `spawn`: before its API is there; `start`: right after the guest has started. */
  dieAt?: string;
  /** Call that it never answers. */
  hangAt?: string;
  /** The guest never says that it listens. */
  silentGuest?: boolean;
  /** The agent, to serve the guest's side; without it nobody listens there. */
  agent?: string;
  /** A QEMU that ends with its parent: runs a whole guest in place of the agent alone. */
  qemu?: string;
  /** Gets a JSON line for every request. */
  record: string;
  /** A file whose creation lets the guest boot; default: at once. */
  bootWhen?: string;
};

export type RecordedRequest = {
  method: string;
  path: string;
  body: unknown;
  /** 0: it was never answered. */
  status: number;
  fault?: string;
  /** When the process began, in ms since 1970. */
  began: number;
  /** How long the stand-in had nothing to do before this, since its last answer or since its API was there, in ms. */
  waited: number;
};
