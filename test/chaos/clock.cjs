/**
 * Loaded before a program of Node's (`--require`): its wall clock is the host's and as many milliseconds as the file named by BANGER_CHAOS_CLOCK says.
 * The clock of the host itself belongs to everybody who works there.
 */
const { readFileSync } = require("node:fs");

const RealDate = Date;
const file = process.env.BANGER_CHAOS_CLOCK;
const now = () => RealDate.now() + Number(readFileSync(file, "utf8"));

globalThis.Date = class extends RealDate {
  constructor(...parts) {
    super(...(parts.length === 0 ? [now()] : parts));
  }
  static now() {
    return now();
  }
};
