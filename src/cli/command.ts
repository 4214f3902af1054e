/** What a command is: data for the parser and the help, and the function that does it. */

type Named = {
  /** One letter: `-r`. */
  short?: string;
  /** For the help, one line, no full stop. */
  help: string;
};
/** Present or not. */
export type SwitchFlag = Named & { kind: "switch" };
/** Takes a value; the last one given counts. `parse` throws USAGE. */
export type ValueFlag<T> = Named & { kind: "value"; placeholder: string; parse: (text: string) => T };
/** Takes a value and may be given several times. */
export type ListFlag<T> = Named & { kind: "list"; placeholder: string; parse: (text: string) => T };
export type Flag = SwitchFlag | ValueFlag<unknown> | ListFlag<unknown>;
export type Flags = Record<string, Flag>;

export type ValuesOf<F extends Flags> = {
  [K in keyof F]: F[K] extends SwitchFlag
    ? boolean
    : F[K] extends ListFlag<infer T>
      ? T[]
      : F[K] extends ValueFlag<infer T>
        ? T | undefined
        : never;
};

export type Argument = {
  /** As shown: `VM`. */
  name: string;
  help: string;
  optional?: boolean;
  /** Takes all that are left. Only the last argument may. */
  many?: boolean;
  /** Left out of the help: taken only to be refused with a better message. */
  hidden?: boolean;
};

export type Invocation<F extends Flags = Flags> = {
  values: ValuesOf<F>;
  args: string[];
  /** The guest's argv, untouched. Undefined when none was given. */
  argv: string[] | undefined;
  /** `--json` was given. */
  json: boolean;
};

/** What a command leaves to be printed. */
export type Outcome = {
  /** Exit status; default 0, or 1 with `errors`. */
  exit?: number;
  /** For `--json`. */
  data?: unknown;
  /** For a person, on stdout. A line break is added. */
  text?: string;
  /** What failed while the rest went on. */
  errors?: unknown[];
};

export type Command<F extends Flags = Flags> = {
  /** What comes after the name, the common form first: `[--rm] [-- COMMAND...]`. */
  usage: readonly string[];
  /** A few sentences, where the summary does not say enough. */
  description?: string;
  args: readonly Argument[];
  /**
   * `none`: no guest argv. `dashes`: what follows the first `--`. `after`: what follows the first `--`, or the named arguments.
   */
  argv: "none" | "dashes" | "after";
  flags: F;
  /** Whole commands and what they do. */
  examples: readonly (readonly [command: string, what: string])[];
  run: (input: Invocation<F>) => Promise<Outcome>;
};

/** Types the values that `run` gets by the flags. */
export const defineCommand = <const F extends Flags>(command: Command<F>): Command<F> => command;

/** A command in the table: enough to find it and to list it without loading it. */
export type Entry = {
  /** `vm run` */
  name: string;
  /** A shorter name for daily use: `run`. */
  alias?: string;
  summary: string;
  hidden?: boolean;
  load: () => Promise<{ command: Runnable }>;
};
/** A command whose flags' types are not known any more. */
export type Runnable = Omit<Command, "run"> & { run: (input: never) => Promise<Outcome> };
