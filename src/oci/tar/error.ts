/** What is wrong with an archive. */
export class TarError extends Error {
  override readonly name = "TarError";
  /** `corrupt`: not what was packed. `refused`: well-formed, and nothing that banger unpacks. */
  readonly kind: "corrupt" | "refused";
  constructor(kind: "corrupt" | "refused", message: string) {
    super(message);
    this.kind = kind;
  }
}
