import { changeCommand } from "./change.ts";

export const command = changeCommand("deny", [
  ["banger vm net deny box any:25", "no mail from it"],
  ["banger vm net deny --remove box any:25", "as before"],
]);
