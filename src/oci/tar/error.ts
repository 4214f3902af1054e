/** What is wrong with an archive. */
export class TarError extends Error {
  override readonly name = "TarError";
  /** `corrupt`: not what was packed. `refused`: well-formed, and nothing that banger unpacks. */
  readonly kind: "corrupt" | "refused";
  /** The program that unpacks it, where it is packed as no layer may be. */
  readonly program: string | undefined;
  constructor(kind: "corrupt" | "refused", message: string, program?: string) {
    super(message);
    this.kind = kind;
    this.program = program;
  }
}
